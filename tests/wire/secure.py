"""Peers behind TLS, with the records in the test's hand: a client, an upstream, and a gateway with listeners for them.

TLS runs without I/O (ssl.MemoryBIO), so a test decides how the bytes of records travel, and an end without
close_notify raises Truncated instead of passing for an end.
"""
import os
import socket
import ssl
import subprocess

from gateway import free_port
from peers import Peer, Raw, Upstream
from wire import FAST, TRUSTED, Wire


# What a sanitizer keeps of freed memory (quarantine_size_mb is 256): OpenSSL frees buffers for each record.
QUARANTINE_KIB = 300 * 1024 if "ASAN_OPTIONS" in os.environ else 0


class Truncated(ConnectionError):
    """The peer closed the connection without close_notify (RFC 8446 6.1): what came may not be all."""


class Secured(Peer):
    """Mixed into a Peer whose socket is connected."""

    tls = None

    def secure(self, context, server_name=None, session=None, server_side=False, step=None, first=b""):
        """step: bytes of each packet. first: said in plain, in one packet with the first record."""
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side,
                                    server_hostname=server_name, session=session)
        self.step, self.first, self.resumed, self.server_name = step, first, None, None
        self.shaken, self.heard = False, False
        if step:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def flush(self):
        data, self.first = self.first + self.outgoing.read(), b""
        for i in range(0, len(data), self.step or len(data) or 1):
            self.socket.sendall(data[i:i + (self.step or len(data))])

    def does(self, call, *arguments):
        """With what it wants from the peer."""
        while True:
            try:
                result = call(*arguments)
            except ssl.SSLWantReadError:
                self.flush()
                data = self.socket.recv(256 * 1024)
                if data:
                    self.heard = True
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            except ssl.SSLZeroReturnError:
                raise
            except ssl.SSLError as failure:
                if isinstance(failure, ssl.SSLEOFError) or failure.reason == "UNEXPECTED_EOF_WHILE_READING":
                    raise Truncated("no close_notify") from None
                self.flush()   # an alert
                raise
            else:
                self.flush()
                return result

    def handshake(self):
        self.does(self.tls.do_handshake)
        self.shaken, self.resumed = True, self.tls.session_reused
        return self

    def send(self, data):
        if not self.shaken:
            self.handshake()
        return self.does(self.tls.write, data) and self

    def send_slowly(self, data):
        """Each byte in a record of its own."""
        for i in range(len(data)):
            self.send(data[i:i + 1])
        return self

    def more(self):
        if self.eof:
            return False
        if not self.shaken:
            self.handshake()
        try:
            data = self.does(self.tls.read, 256 * 1024)
        except ssl.SSLZeroReturnError:   # the second half of an end
            data = b""
        self.eof = not data
        self.buffer += data
        self.received += data
        return bool(data)

    def ended(self):
        """As Peer.ended; an end without close_notify is none."""
        try:
            while self.more():
                pass
        except Truncated:
            raise
        except ConnectionError:
            self.eof = True
        return not self.buffer

    def shut(self):
        """close_notify: nothing more from here; the other direction lives on."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.flush()

    def cut(self):
        """FIN without close_notify."""
        self.socket.shutdown(socket.SHUT_WR)

    @property
    def alpn(self):
        return self.tls.selected_alpn_protocol()

    @property
    def version(self):
        return self.tls.version()


class Client(Secured, Raw):
    """Raw over TLS."""

    def __init__(self, port, context, server_name="a.example", session=None, step=None, first=b"", handshake=True, **more):
        Raw.__init__(self, port, **more)
        self.secure(context, server_name, session, step=step, first=first)
        if handshake:
            self.handshake()


class SecuredPeer(Secured):
    """An upstream's connection."""


class SecureUpstream(Upstream):
    """Upstream over TLS. `refusals`: why handshakes failed that had begun."""

    def __init__(self, context):
        self.context = context
        self.refusals, self.names = [], []
        context.sni_callback = self.named
        super().__init__()

    def named(self, tls, name, _):
        self.names.append(name)

    def program(self, script=None, reply=None):
        self.refusals, self.names = [], []
        return super().program(script, reply)

    def meet(self, sock):
        peer = SecuredPeer(sock)
        peer.secure(self.context, server_side=True)
        return peer

    def run(self, script, peer):
        try:
            peer.handshake()
        except OSError as failure:   # ssl.SSLError is one
            if peer.heard:           # else it was program()'s
                self.refusals.append(failure)
            peer.over = True
            peer.close()
        else:
            super().run(script, peer)


class SecureWire(Wire):
    """A gateway with a listener for each kind of TLS; its upstreams speak plain HTTP/1.1."""

    UPSTREAMS = {"main": {"timeouts": {"response": "20s"}}}

    def __init__(self, directory, pki):
        self.pki = pki
        self.one = pki.ca.issue("a.example")
        self.one_rsa = pki.rsa_ca.issue("a.example", kind="rsa")
        self.wild = pki.intermediate.issue("*.wild.example", "exact.example")
        self.pair = pki.ca.issue("b.example", "c.example")
        self.inner = pki.ca.issue("in.wild.example")
        certificates = [c.files for c in (self.one, self.one_rsa, self.wild, self.pair, self.inner)]
        tls = {"certificates": certificates}
        authority = pki.clients.file
        self.LISTENERS = {
            "tls": {"tls": tls, "limits": {"body_bytes": "2GiB"}},
            "strict": {"tls": {**tls, "strict_sni": True}},
            "http1": {"tls": tls, "protocols": ["http/1.1"]},
            "h2": {"tls": tls, "protocols": ["h2"]},
            "newest": {"tls": {**tls, "min_version": "1.3"}},
            "asked": {"tls": {**tls, "client_ca": authority, "client_auth": "optional"}},
            "required": {"tls": {**tls, "client_ca": authority, "client_auth": "require"}},
            "trusted": {"tls": tls, "trusted_proxies": [TRUSTED]},
            "proxy": {"tls": tls, "trusted_proxies": [TRUSTED], "proxy_protocol": True},
            "fast": {"tls": tls, "timeouts": FAST, "limits": {"body_bytes": "64MiB"}},
            "few": {"tls": tls, "limits": {"connections": 4}},
            "stapled": {"tls": {"certificates": [
                {**self.one.files, "ocsp": pki.ca.ocsp(self.one)}, self.one_rsa.files, self.pair.files]}},
            "redirect": {"redirect_to": "tls"},
            "plain": {},
        }
        super().__init__(directory)

    def routes(self):
        return [{"name": "root", "match": {"path": {"prefix": "/"}}, "upstream": "main", "timeout": "0s"}]

    def client(self, listener="tls", context=None, **more):
        """A connection whose handshake is done (unless handshake=False); closed when the test ends."""
        self.clients.append(Client(self.ports[listener], context or self.pki.client_context(), **more))
        return self.clients[-1]


def tls_gateway(make, pki, *certificates, origin=None, **tls):
    """A gateway with nothing but a listener with TLS, on gateway.tls_port."""
    port = free_port()
    files = [c.files for c in certificates or [pki.ca.issue("a.example")]]
    gateway = make({"listeners": [{"name": "tls", "address": f"127.0.0.1:{port}", "tls": {"certificates": files, **tls}}]},
                   origin=origin)
    gateway.tls_port = port
    return gateway


def s_client(port, *options, text=b"", timeout=30):
    """What openssl s_client prints; its stdin ends after `text`."""
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options], input=text,
                          capture_output=True, timeout=timeout)
    return (done.stdout + done.stderr).decode("latin-1")


def get(path="/", host="a.example", *fields):
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *fields]).encode() + b"\r\n\r\n"
