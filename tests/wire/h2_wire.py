"""The Wire with TLS in front and HTTP/2 behind, and clients of every version for it."""
import contextlib
import threading
import time

from gateway import BINARY, until
from h2_peers import H2Client, H2Upstream, TlsUpstream, by_hand
from peers import Raw, request
from wire import FAST, SMALL, Wire

MIB = 1 << 20


def sanitized():
    return any(name in BINARY.read_bytes() for name in (b"__asan_init", b"__tsan_init"))


SANITIZED = sanitized()
# A sanitizer keeps what was freed for a while, and is slow.
MEMORY_KIB = 64 * 1024 if not SANITIZED else 512 * 1024
PATIENCE = 5.0 if not SANITIZED else 10.0   # of another client, while somebody misbehaves


@contextlib.contextmanager
def others_served(port):
    """Another client's requests are answered soon, all the while: the gateway says 203 to /said."""
    stop, slowest, failures = threading.Event(), [0.0], []

    def ask_on():
        try:
            with Raw(port) as other:
                while not stop.is_set():
                    began = time.monotonic()
                    assert other.ask(request("/said")).status == 203
                    slowest[0] = max(slowest[0], time.monotonic() - began)
                    stop.wait(0.005)
        except Exception as failure:
            failures.append(failure)

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failures and slowest[0] < PATIENCE, (failures, slowest)


class H2Wire(Wire):
    LISTENERS = {
        **Wire.LISTENERS,
        "tls": {"limits": {"body_bytes": "2GiB"}},
        "tls_small": {"limits": SMALL},
        "tls_fast": {"timeouts": FAST},
        "h1_only": {"protocols": ["http/1.1"]},
        "h2_only": {"protocols": ["h2"]},
    }
    UPSTREAMS = {
        **Wire.UPSTREAMS,
        "one_tls": {},
        "two": {"protocol": "h2", "timeouts": {"response": "20s"}},
        "two_tls": {"protocol": "h2", "timeouts": {"response": "20s"}},
        "two_fast": {"protocol": "h2", "timeouts": {"connect": "1s", "response": "1s", "idle": "1s"},
                     "retries": {"attempts": 0}},
        "two_again": {"protocol": "h2", "retries": {"attempts": 2, "backoff": "1ms", "budget": 1.0}},
        "two_one": {"protocol": "h2", "limits": {"connections": 1}, "timeouts": {"connect": "5s"}},
        "two_pair": {"protocol": "h2", "targets": ["two_a", "two_b"], "retries": {"attempts": 1, "backoff": "1ms"},
                     "outlier": {"max_ejected": 0}},
    }

    def __init__(self, directory, pki):
        self.pki, self.certificate = pki, pki.ca.issue("localhost", "test", "IP:127.0.0.1")
        self.touched = set()
        super().__init__(directory)

    def new_upstream(self, target):
        tls = "tls" in target and self.pki.server_context(self.certificate, alpn=["h2" if "two" in target else "http/1.1"])
        return H2Upstream(tls or None) if target.startswith("two") else TlsUpstream(tls or None)

    def config(self):
        config = super().config()
        for listener in config["listeners"]:
            if listener["name"].startswith("tls"):
                listener["tls"] = {"certificates": [self.certificate.files]}
        for name, upstream in config["upstreams"].items():
            if name.endswith("tls"):
                upstream["tls"] = {"ca": self.pki.ca.file, "server_name": "localhost"}
        return config

    def routes(self):
        return super().routes() + [
            {"name": name, "match": {"path": {"prefix": f"/{name}"}}, "upstream": name}
            for name in self.UPSTREAMS if name.startswith(("one", "two_")) or name == "two"]

    def __getitem__(self, name):
        self.touched.add(name)
        return self.upstreams[name]

    def begin(self):
        """As the parent's, for those upstreams that were used."""
        used = {name for name, upstream in self.upstreams.items() if upstream.accepted or name in self.touched}
        self.touched.clear()
        for name in used:
            self.upstreams[name].program()
        until(lambda: not any(self.pooled(name) for name in self.UPSTREAMS), "pools without connections")

    def tls(self, listener, *alpn):
        return self.pki.client_context(alpn=list(alpn or ["h2"])) if listener.startswith("tls") else None

    def h2(self, listener="plain", **more):
        """A client that speaks HTTP/2, closed when the test ends."""
        self.clients.append(H2Client(self.ports[listener], tls=self.tls(listener), **more))
        return self.clients[-1]

    def frames(self, listener="plain", **more):
        """A client that sends frames by hand."""
        self.clients.append(by_hand(self.ports[listener], tls=self.tls(listener), **more))
        return self.clients[-1]

    def raw_tls(self, listener="tls"):
        """A client of HTTP/1.1 over TLS."""
        client = Raw(self.ports[listener])
        client.socket = self.tls(listener, "http/1.1").wrap_socket(client.socket, server_hostname="localhost")
        self.clients.append(client)
        return client

    def end(self):
        failures = [client.failure for client in self.clients if getattr(client, "failure", None)]
        super().end()
        assert not failures, failures

    @contextlib.contextmanager
    def unharmed(self, memory_kib=MEMORY_KIB):
        """Whatever happens inside: another connection is answered soon all the while, and memory stays bounded."""
        before = self.resident_kib()
        with others_served(self.ports["trusted"]):
            yield
        assert self.resident_kib() - before < memory_kib


class Held:
    """Requests wait here until they are let go."""

    def __init__(self):
        self.go, self.waiting = threading.Event(), 0
        self.lock = threading.Lock()

    def wait(self):
        with self.lock:
            self.waiting += 1
        assert self.go.wait(30)

    def until(self, count):
        until(lambda: self.waiting >= count, lambda: f"{count} waiting requests, there are {self.waiting}")


# ---- one request by any version ----

def chunked_answer(body, status="200 OK", *fields, trailers=()):
    """Bytes of an HTTP/1.1 response with trailers."""
    head = "\r\n".join([f"HTTP/1.1 {status}", "Transfer-Encoding: chunked", *fields, "", ""]).encode()
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 10_000]), body[i:i + 10_000]) for i in range(0, len(body), 10_000))
    return head + pieces + b"0\r\n" + "".join(f"{trailer}\r\n" for trailer in trailers).encode() + b"\r\n"


def ask(wire, version, path, method="GET", *fields, body=None, trailers=()):
    """The response to a request of the version "1.0", "1.1", "tls 1.1", "h2" or "tls h2"."""
    if version.endswith("h2"):
        return wire.h2("tls" if version.startswith("tls") else "plain").ask(path, method, *fields, body=body,
                                                                          trailers=trailers, length=not trailers)
    client = wire.raw_tls() if version.startswith("tls") else wire.raw()
    if trailers:
        client.send(request(path, method, "Transfer-Encoding: chunked", "TE: trailers", *fields))
        client.send(chunked_answer(body, trailers=trailers).split(b"\r\n\r\n", 1)[1])
    else:
        client.send(request(path, method, *fields, body=body, version=version.split()[-1]))
    return client.response(method)


def authority_of(seen):
    return seen.pseudo[":authority"] if hasattr(seen, "pseudo") else seen.get("Host")


def is_problem(got, status, code):
    """An answer of the gateway's own."""
    assert got.status == status and got.get("content-type") == "application/problem+json", got
    assert got.json["code"] == code and got.json["instance"] == got.get("x-request-id")
    assert got.get("content-length") == str(len(got.body)) and "connection" not in got.names
