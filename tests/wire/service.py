"""An upstream that speaks HTTP/1.1 or HTTP/2, and answers by the number of the request."""
from h2_peers import INTERNAL_ERROR, H2Upstream
from h2_wire import chunked_answer
from peers import Upstream, answer
from wire import Wire

PROTOCOLS = ["http/1.1", "h2"]


class Service:
    """An upstream of either protocol, and what it can do to a request."""

    def __init__(self, protocol):
        self.protocol = protocol
        self.upstream = H2Upstream() if protocol == "h2" else Upstream()

    def respond(self, status, body=b"done", trailers=()):
        """status(n): of the n-th request; None: it is broken off before the head. trailers: lines, of HTTP/1.1 in chunks."""
        upstream = self.upstream
        if self.protocol == "h2":
            def stream(one):
                number = upstream.requests.index(one) + 1
                one.whole()
                code = status(number)
                if code is None:
                    one.cancel(INTERNAL_ERROR)
                else:
                    one.answer(b"" if code == 204 else body, code, trailers=trailers, length=not trailers)
            upstream.program(stream=stream)
            return

        def script(peer):
            while (message := upstream.read(peer)) is not None:
                code = status(upstream.requests.index(message) + 1)
                if code is None:
                    peer.reset()
                    return
                peer.send(chunked_answer(body, f"{code} Said", trailers=trailers) if trailers else
                          answer(b"" if code == 204 else body, f"{code} Said"))
        upstream.program(script)

    def begin(self, event=None):
        """The head of 201 and half of the body, and the rest when the event has come; without one it breaks off."""
        upstream = self.upstream
        if self.protocol == "h2":
            def stream(one):
                one.whole()
                one.respond(201, ("content-length", "4"))
                one.send(b"do")
                if not event:
                    one.cancel(INTERNAL_ERROR)
                    return
                event.wait(30)
                one.send(b"ne", end=True)
            upstream.program(stream=stream)
            return

        def script(peer):
            upstream.read(peer)
            peer.send(answer(b"done", "201 Said")[:-2])
            if not event:
                return
            event.wait(30)
            peer.send(b"ne")
            upstream.serve(peer)
        upstream.program(script)

    @property
    def requests(self):
        return self.upstream.requests


class ServiceWire(Wire):
    """A gateway that many tests share, in front of one service."""

    UPSTREAMS = {}

    def __init__(self, directory, protocol):
        self.protocol = protocol
        self.service = Service(protocol)
        super().__init__(directory)

    def end(self):
        super().end()
        self.service.upstream.check()

    def __exit__(self, *more):
        self.service.upstream.close()
        super().__exit__(*more)
