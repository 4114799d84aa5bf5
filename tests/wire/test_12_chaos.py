"""Everybody misbehaves at once, by a seed: nothing leaks, nothing dies, and whoever behaves is served in order."""
import os
import random
import threading
import time

import pytest

from gateway import until
from peers import Incomplete, Raw, answer, request

SECONDS = 3
SEED = int(os.environ.get("SALLYPORT_SEED", time.time_ns() % 1_000_000))
OK = b"HTTP/1.1 200 OK\r\n"


def upstream_script(rand):
    def whole(peer, seen):
        peer.send(answer(seen.target.encode()))
        return True

    def chunked(peer, seen):
        peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(rand.randrange(5)):
            size = rand.randrange(1, 40_000)
            peer.send(b"%x\r\n" % size + b"c" * size + b"\r\n")
        peer.send(b"0\r\nX-T: 1\r\n\r\n" if rand.random() < 0.5 else b"0\r\n\r\n")
        return True

    def interim(peer, seen):
        peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * rand.randrange(1, 4))
        return whole(peer, seen)

    def large(peer, seen):
        peer.send(answer(b"l" * rand.randrange(1_000_000)))
        return True

    def in_pieces(peer, seen):
        peer.send_slowly(answer(seen.target.encode()))
        return True

    def until_end(peer, seen):
        peer.send(OK + b"\r\n" + b"e" * rand.randrange(100_000))

    def cut(peer, seen):
        peer.send((OK + b"Content-Length: 100000\r\n\r\n" + b"t" * 50_000)[:rand.randrange(1, 50_000)])

    def garbage(peer, seen):
        peer.send(rand.randbytes(rand.randrange(1, 200)))

    def more(peer, seen):
        peer.send(answer() + answer(b"poison"))

    def nothing(peer, seen):
        pass

    def reset(peer, seen):
        peer.reset()

    kinds = [whole, whole, whole, chunked, interim, large, in_pieces, until_end, cut, garbage, more, nothing, reset]

    def script(peer):
        while True:
            head = peer.head()
            if head is None:
                return
            if rand.random() < 0.8:   # else it is answered before the body has come
                peer.body(head)
            if not rand.choice(kinds)(peer, head) or rand.random() < 0.1:
                return
    return script


def bad_client(wire, rand, stop):
    while not stop.is_set():
        client = Raw(wire.ports["plain"])
        try:
            for _ in range(rand.randrange(1, 6)):
                method = rand.choice(["GET", "HEAD", "POST", "PUT"])
                body = None if method in ("GET", "HEAD") else b"b" * rand.randrange(100_000)
                data = request(rand.choice(["/x", "/again", "/hurry", "/tiny", "/said", "/pair"]), method, body=body)
                what = rand.random()
                if what < 0.1:
                    client.send(data[:rand.randrange(len(data))])
                    break
                if what < 0.15:
                    client.send(rand.randbytes(100))
                    break
                if what < 0.2:
                    client.send(data * 5)   # pipelined, and gone
                    break
                client.send(data)
                if what < 0.3:
                    break
                if what < 0.35:
                    client.shut()
                if client.response(method) is None:
                    break
        except (OSError, Incomplete, AssertionError, ValueError):
            pass
        (client.reset if rand.random() < 0.3 else client.close)()


def test_chaos(wire):
    print(f"SALLYPORT_SEED={SEED}")
    wire["budget"].program(reply=lambda r: answer(r.target.encode()))
    rand, stop, failures, served = random.Random(SEED), threading.Event(), [], [0]
    for name in ("main", "again", "pair_a", "pair_b"):
        wire[name].program(upstream_script(rand))

    def good_client(number):
        """Asks an upstream that behaves, through the same worker."""
        try:
            client = Raw(wire.ports["plain"])
            while not stop.is_set():
                path = f"/budget/{number}/{served[0]}"
                got = client.ask(request(path))
                assert got.status == 200 and got.body == path.encode(), got
                served[0] += 1
            client.close()
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=bad_client, args=(wire, random.Random(SEED + i), stop)) for i in range(8)]
    threads += [threading.Thread(target=good_client, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    stop.wait(SECONDS)
    until(lambda: failures or served[0] > 10, "requests served meanwhile")
    stop.set()
    for thread in threads:
        thread.join(40)
        assert not thread.is_alive()
    assert not failures, failures
    until(wire.at_rest, "rest")
    for name in ("main", "again", "pair_a", "pair_b"):
        wire[name].failures.clear()


@pytest.mark.parametrize("turn", range(3))
def test_random_splits_of_a_pipeline(wire, turn):
    """However the bytes are cut into packets, the conversation is the same."""
    rand = random.Random(SEED + turn)
    wire["main"].program(reply=lambda r: answer(r.method.encode() + r.target.encode() + r.body, "200 OK", "X-N: 1"))
    wanted, data = [], b""
    for i in range(40):
        body = rand.randbytes(rand.choice([0, 1, 10, 5000, 40_000]))
        if rand.random() < 0.4:
            data += request(f"/{i}")
            wanted.append(b"GET/%d" % i)
        elif rand.random() < 0.5:
            data += request(f"/{i}", "POST", body=body)
            wanted.append(b"POST/%d" % i + body)
        else:
            data += request(f"/{i}", "PUT", "Transfer-Encoding: chunked")
            at = 0
            while at < len(body):
                piece = body[at:at + rand.randrange(1, 20_000)]
                data += b"%x\r\n%s\r\n" % (len(piece), piece)
                at += len(piece)
            data += b"0\r\n\r\n"
            wanted.append(b"PUT/%d" % i + body)
    client = wire.raw()

    def push():
        at = 0
        while at < len(data):
            size = rand.choice([1, 2, 3, 50, 1000, 16_384, 60_000])
            client.send(data[at:at + size])
            at += size

    pusher = threading.Thread(target=push)
    pusher.start()
    for want in wanted:
        assert client.response().body == want
    pusher.join()
