"""A storm: many clients that ask, abort, half-close, dawdle, pipeline and tunnel, against upstreams that misbehave in
every way they know, while the configuration is reloaded. Nothing is asserted about single answers but that none is
false: a complete 200 carries the right body. At the end nothing lives, nothing is lent, nobody has died. The seed is
printed; SALLYPORT_STORM_SEED and SALLYPORT_STORM_SECONDS repeat or prolong it.
"""
import asyncio
import os
import random
import signal
import time

import pytest

from gateway import free_port, until
from storm_clients import StormClient, reset
from watched import Watched, route

SECONDS = float(os.environ.get("SALLYPORT_STORM_SECONDS", "12"))
SEED = int(os.environ.get("SALLYPORT_STORM_SEED", "20260101"))
CLIENTS = 60
FAST = {"header": "700ms", "body": "700ms", "idle": "700ms", "write": "700ms"}


def filler(size, mark):
    return (mark * (size // len(mark) + 1))[:size]


async def read_head(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
    return lines[0], fields


async def read_body(reader, fields, until_end=False, limit=None):
    """The body; stops early after `limit` bytes."""
    got = b""
    if fields.get(b"transfer-encoding") == b"chunked":
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if not size:
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass
                return got
            got += (await reader.readexactly(size + 2))[:-2]
            if limit is not None and len(got) >= limit:
                return got
    if b"content-length" in fields:
        want = int(fields[b"content-length"])
        return await reader.readexactly(want if limit is None else min(want, limit))
    return await reader.read() if until_end else b""


class Upstream:
    """Its target says what it does: /KIND?size=N."""

    def __init__(self, rng):
        self.rng = rng

    async def serve(self, reader, writer):
        try:
            while await self.one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            writer.close()

    async def pause(self, most):
        await asyncio.sleep(self.rng.random() * most)

    async def spell(self, writer, data):
        """In pieces."""
        while data:
            n = self.rng.randint(1, max(1, len(data)))
            writer.write(data[:n])
            await writer.drain()
            data = data[n:]
            if self.rng.random() < 0.3:
                await self.pause(0.01)

    async def one(self, reader, writer):
        line, fields = await read_head(reader)
        kind, _, size = line.split(b" ")[1].decode().partition("?size=")
        kind, size = kind.rsplit("/", 1)[1], int(size or 10)
        rng = self.rng
        if kind == "early":           # answers before the body, reads it or not
            await self.spell(writer, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + filler(size, b"early"))
            if rng.random() < 0.5:
                return False
            await read_body(reader, fields)
            return True
        if kind == "deaf":
            await self.pause(1.0)
            return False
        if kind == "partial":
            await read_body(reader, fields, limit=rng.randint(0, 5000))
            if rng.random() < 0.5:
                reset(writer)
            return False
        if kind == "continue":
            if b"expect" in fields:
                if rng.random() < 0.5:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                elif rng.random() < 0.5:
                    await self.spell(writer, b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno")
                    return False
        if kind == "upgrade" and b"upgrade" in fields:
            return await self.tunnel(reader, writer)
        body = await read_body(reader, fields)
        if kind == "hint":
            for _ in range(rng.randint(1, 20)):
                writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
        if kind == "garbage":
            await self.spell(writer, rng.choice([b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
                                                 b"HTTP/1.1 200 OK\r\n bad\r\n\r\n", rng.randbytes(200)]))
            await self.pause(0.1)
            return False
        if kind == "none":
            if rng.random() < 0.5:
                reset(writer)
            return False
        if kind == "slow":
            await self.pause(0.6)
        if kind == "fail":
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            return rng.random() < 0.5
        whole = self.response(kind, size, body)
        if kind == "cut":
            await self.spell(writer, whole[:rng.randrange(len(whole))])
            if rng.random() < 0.5:
                reset(writer)
            return False
        await self.spell(writer, whole + (b"HTTP/1.1 200 OK\r\n" if kind == "extra" else b""))
        return kind not in ("close", "extra") and rng.random() < 0.9

    def response(self, kind, size, body):
        if kind == "echo":
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        data = filler(size, kind.encode())
        if kind == "close":
            return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + data
        if kind == "chunked":
            parts = b""
            while data:
                n = self.rng.randint(1, len(data))
                parts += b"%x\r\n%s\r\n" % (n, data[:n])
                data = data[n:]
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\nX-Trailer: t\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + data

    async def tunnel(self, reader, writer):
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        budget = self.rng.randint(0, 200000)
        while budget > 0:
            data = await reader.read(8192)
            if not data:
                break
            writer.write(data)
            await writer.drain()
            budget -= len(data)
        if self.rng.random() < 0.3:
            reset(writer)
        return False


KINDS = ["plain"] * 6 + ["echo"] * 4 + ["chunked", "close", "cut", "cut", "none", "garbage", "slow", "fail", "extra",
                                        "early", "deaf", "partial", "continue", "hint", "upgrade"]


class Client(StormClient):
    CUT = (*StormClient.CUT, ValueError)   # of a head that is no head

    def __init__(self, ports, rng, tally):
        self.ports, self.rng, self.tally = ports, rng, tally

    async def connection(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.rng.choice(self.ports), limit=1 << 20)
        try:
            await self.rng.choice([self.converse] * 6 + [self.pipeline, self.abort, self.dawdle, self.deaf,
                                                         self.half_close, self.tunnel, self.nonsense])(reader, writer)
        finally:
            if self.rng.random() < 0.3:
                reset(writer)
            writer.close()

    def request(self, kind=None, chunked=None):
        """(kind, what a complete 200 carries or None, bytes)"""
        rng = self.rng
        kind = kind or rng.choice(KINDS)
        size = rng.choice([0, 1, 10, 1000, 16384, 70000, 500000]) if kind != "hint" else 5
        method = rng.choice(["GET", "POST", "PUT"])
        head = f"{method} /{rng.choice(['one', 'two', 'three'])}/{kind}?size={size} HTTP/1.1\r\nHost: storm\r\n"
        body = b""
        if method != "GET":
            body = filler(rng.choice([0, 3, 2000, 17000, 90000, 400000]), b"body")
            if kind == "continue" and body:
                head += "Expect: 100-continue\r\n"
            if chunked if chunked is not None else rng.random() < 0.4:
                head += "Transfer-Encoding: chunked\r\n"
                body = self.chunks(body)
                wanted_body = None
            else:
                head += f"Content-Length: {len(body)}\r\n"
                wanted_body = body
        wanted = filler(size, kind.encode()) if kind in ("plain", "chunked", "close", "slow", "extra", "hint", "cut") else \
            (wanted_body if method != "GET" else b"") if kind == "echo" else None
        return kind, wanted, head.encode() + b"\r\n" + body

    def chunks(self, body):
        out = b""
        while body:
            n = self.rng.randint(1, len(body))
            out += b"%x\r\n%s\r\n" % (n, body[:n])
            body = body[n:]
        return out + b"0\r\n\r\n"

    async def answer(self, reader, wanted):
        while True:
            line, fields = await read_head(reader)
            status = int(line.split(b" ")[1])
            if status >= 200 or status == 101:
                break
        body = await read_body(reader, fields, until_end=True)
        self.tally[status] = self.tally.get(status, 0) + 1
        if status == 200 and wanted is not None:
            assert body == wanted, f"a false answer: {len(body)} bytes for {len(wanted)}"
        return fields.get(b"connection") != b"close"

    async def send(self, writer, data):
        rng = self.rng
        while data:
            n = len(data) if rng.random() < 0.5 else rng.randint(1, len(data))
            writer.write(data[:n])
            await writer.drain()
            data = data[n:]
            if data and rng.random() < 0.2:
                await asyncio.sleep(rng.random() * 0.05)

    async def converse(self, reader, writer):
        for _ in range(self.rng.randint(1, 8)):
            _, wanted, data = self.request()
            sending = asyncio.ensure_future(self.send(writer, data))
            try:
                keep = await self.answer(reader, wanted)
            finally:
                if not sending.done():
                    sending.cancel()
                try:
                    await sending
                    whole = True
                except (asyncio.CancelledError, OSError):
                    whole = False
            if not keep or not whole:
                return

    async def pipeline(self, reader, writer):
        requests = [self.request(self.rng.choice(["plain", "echo", "chunked", "none", "cut"])) for _ in range(6)]
        sending = asyncio.ensure_future(self.send(writer, b"".join(data for _, _, data in requests)))
        try:
            for _, wanted, _ in requests:
                if not await self.answer(reader, wanted):
                    break
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def abort(self, reader, writer):
        _, _, data = self.request()
        await self.send(writer, data[:self.rng.randrange(len(data))])
        await asyncio.sleep(self.rng.random() * 0.05)
        reset(writer)

    async def dawdle(self, reader, writer):
        _, _, data = self.request()
        await self.send(writer, data[:self.rng.randrange(min(len(data), 300))])
        await reader.read()   # 408, or the end

    async def deaf(self, reader, writer):
        """Asks for much and reads little."""
        writer.write(b"GET /one/plain?size=500000 HTTP/1.1\r\nHost: storm\r\n\r\n" * 40)
        await asyncio.sleep(self.rng.random() * 1.5)
        await reader.read(self.rng.choice([1, 100000, 3000000]))

    async def half_close(self, reader, writer):
        _, wanted, data = self.request()
        await self.send(writer, data)
        writer.write_eof()
        await self.answer(reader, wanted)
        await reader.read()

    async def tunnel(self, reader, writer):
        writer.write(b"GET /two/upgrade HTTP/1.1\r\nHost: storm\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        line, _ = await read_head(reader)
        if b" 101 " not in line:
            return
        owed = b""
        for _ in range(self.rng.randint(0, 10)):
            data = self.rng.randbytes(self.rng.choice([1, 100, 30000]))
            writer.write(data)
            owed += data
            if self.rng.random() < 0.7:
                assert await reader.readexactly(len(owed)) == owed
                owed = b""
        end = self.rng.random()
        if end < 0.4:
            writer.write_eof()
            await reader.read()
        elif end < 0.6:
            await asyncio.sleep(0.5)

    async def nonsense(self, reader, writer):
        writer.write(self.rng.choice([b"\r\n\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n", self.rng.randbytes(100) + b"\r\n\r\n",
                                      b"POST /one/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]))
        await reader.read()


def config(ports, upstream_ports, generation):
    """Each generation names some upstreams anew, changes targets and listeners."""
    one, two, three = upstream_ports
    again = {"attempts": 2, "statuses": [503], "backoff": "1ms", "budget": 1.0}
    fast = {"connect": "500ms", "response": "500ms", "idle": "300ms"}
    targets = [{"address": f"127.0.0.1:{port}"} for port in (one, two, three)]
    names = {"one": "one", "two": "two", "three": f"three{generation % 3}"}
    return {
        "workers": 2,
        "listeners": [{"name": f"l{i}", "address": f"127.0.0.1:{port}", "timeouts": FAST}
                      for i, port in enumerate(ports) if i != 2 or generation % 2 == 0],
        "upstreams": {
            names["one"]: {"targets": targets[:2], "timeouts": fast, "retries": again},
            names["two"]: {"targets": targets[1:] if generation % 2 else targets, "timeouts": fast,
                           "load_balancer": "least_request", "limits": {"connections": 8, "requests": 12, "pending": 6}},
            names["three"]: {"targets": targets, "timeouts": fast, "load_balancer": "consistent_hash", "hash_on": "path",
                             "retries": again},
        },
        "routes": [route(name, upstream, timeout="0s" if name == "one" else "2s",
                         **({"fault": {"delay": "20ms", "delay_ratio": 0.2}} if name == "three" else {}))
                   for name, upstream in names.items()],
    }


async def storm(running, ports, servers_rng, seed, configs, seconds=SECONDS, leave=None):
    servers = []
    for port in configs["upstreams"]:
        servers.append(await asyncio.start_server(Upstream(servers_rng).serve, "127.0.0.1", port, limit=1 << 20))
    tally = {"cut": 0, "hung": 0}
    end = time.monotonic() + seconds
    clients = [Client(ports, random.Random(f"{seed}-{i}"), tally).run(end) for i in range(CLIENTS)]

    async def reload():
        generation = 0
        while time.monotonic() < end - 1:
            await asyncio.sleep(0.4)
            generation += 1
            changed = config(ports, configs["upstreams"], generation)
            running.write(running.complete({**changed, "drain": running.config["drain"]}, None))
            running.signal(signal.SIGHUP)
        if leave:
            running.signal(leave)

    await asyncio.gather(reload(), *clients)
    for server in servers:
        server.close()
    return tally


def test_storm(gateway):
    print(f"SALLYPORT_STORM_SEED={SEED}")
    ports = [free_port() for _ in range(3)]
    upstream_ports = [free_port() for _ in range(3)]
    running = gateway(config(ports, upstream_ports, 0))
    tally = asyncio.run(storm(running, ports, random.Random(SEED), SEED, {"upstreams": upstream_ports}))
    print(tally)
    assert tally["hung"] == 0, tally
    assert tally.get(200, 0) > 50, tally
    running.wait_rest()
    until(lambda: all(value >= 0 for value in running.metrics().values()), running.metrics)


@pytest.mark.parametrize("timeout", ["100ms", "20s"])
def test_leaving_in_a_storm(tmp_path, timeout):
    """TERM in the middle of it: with time to finish and without."""
    ports = [free_port() for _ in range(3)]
    upstream_ports = [free_port() for _ in range(3)]
    running = Watched(tmp_path, {**config(ports, upstream_ports, 0), "drain": {"delay": "0s", "timeout": timeout}})
    running.start()
    try:
        asyncio.run(storm(running, ports, random.Random(SEED), SEED, {"upstreams": upstream_ports}, 3, signal.SIGTERM))
        assert running.wait() == 0, running.log()
        assert "ended with status" not in running.log() and "killed" not in running.log(), running.log()
    finally:
        running.kill()
