"""Programs that people use, through the gateway: curl, nghttp, h2load, openssl, Chromium, testssl."""
import base64
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading

import pytest

from peers import answer

SCANNER = pathlib.Path(__file__).with_name("scan_tls.py")
FILES = {"/small": b"small", "/empty": b"", "/big": bytes(range(256)) * 8192}   # 2 MiB


def serve(wire, more=lambda r: None):
    wire["main"].program(reply=lambda r: more(r) or (
        answer(FILES[r.target.split("?")[0]]) if r.target.split("?")[0] in FILES else answer(r.body)))


def run(*arguments, timeout=60, text=False, **more):
    return subprocess.run([str(a) for a in arguments], capture_output=True, timeout=timeout, text=text, **more)


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


# ---- curl ----

def curl(wire, listener, path, *options, tls=True):
    """(what it says of itself, the body)"""
    port = wire.ports[listener]
    done = run("curl", "-sS", "--max-time", "30", "--resolve", f"a.example:{port}:127.0.0.1", "--cacert", wire.pki.ca.file,
               "-w", "%{stderr}%{http_code} %{http_version} %{num_connects}", *options,
               f"{'https' if tls else 'http'}://a.example:{port}{path}")
    assert done.returncode == 0, done
    return done.stderr.decode(), done.stdout


@needs("curl")
@pytest.mark.parametrize("listener, option, version, tls", [
    ("tls", "--http2", "2", True), ("tls", "--http1.1", "1.1", True), ("tls", "--http2-prior-knowledge", "2", True),
    ("tls", "--tls-max 1.2", "2", True), ("http1", "--http2", "1.1", True),
    ("plain", "--http2-prior-knowledge", "2", False), ("plain", "--http1.1", "1.1", False),
    ("plain", "--http2", "1.1", False)])   # the last asks for an upgrade to h2c, which is not taken
def test_curl(secure, listener, option, version, tls):
    serve(secure)
    for path, body in FILES.items():
        said, got = curl(secure, listener, path, *option.split(), tls=tls)
        assert said.split()[:2] == ["200", version] and got == body


@needs("curl")
@pytest.mark.parametrize("listener, option, tls", [("tls", "--http2", True), ("tls", "--http1.1", True),
                                                   ("plain", "--http2-prior-knowledge", False)])
def test_curl_sends_bodies(secure, tmp_path, listener, option, tls):
    serve(secure)
    file = tmp_path / "body"
    file.write_bytes(os.urandom(3_000_000))
    said, got = curl(secure, listener, "/post", option, "--data-binary", f"@{file}", tls=tls)
    assert said.split()[0] == "200" and got == file.read_bytes()
    said, got = curl(secure, listener, "/put", option, "-T", file, "-H", "Transfer-Encoding: chunked", tls=tls)
    assert got == file.read_bytes() and secure["main"].requests[-1].method == "PUT"


@needs("curl")
def test_curl_asks_for_many_at_once(secure):
    serve(secure)
    port = secure.ports["tls"]
    done = run("curl", "-sS", "--http2", "--parallel", "--parallel-max", "50", "--max-time", "30", "--resolve",
               f"a.example:{port}:127.0.0.1", "--cacert", secure.pki.ca.file, "-o", os.devnull,
               "-w", "%{http_code} %{http_version}\n", f"https://a.example:{port}/small?[1-200]")
    assert done.stdout.decode().split("\n")[:-1] == ["200 2"] * 200, done


@needs("curl")
def test_curl_with_a_client_certificate(secure):
    me = secure.pki.clients.issue("me.example", client=True, common_name="me")
    serve(secure)
    said, got = curl(secure, "required", "/small", "--cert", me.cert, "--key", me.key)
    assert said.split()[:2] == ["200", "2"] and got == b"small"
    assert f"Hash={me.fingerprint}" in secure["main"].only().get("X-Forwarded-Client-Cert")


@needs("curl")
def test_curl_follows_the_redirect(secure):
    serve(secure)
    tls, plain = secure.ports["tls"], secure.ports["redirect"]
    done = run("curl", "-sS", "-L", "--max-time", "30", "--resolve", f"a.example:{plain}:127.0.0.1", "--resolve",
               f"a.example:{tls}:127.0.0.1", "--cacert", secure.pki.ca.file, "-d", "kept", "-w", "%{stderr}%{url_effective}",
               f"http://a.example:{plain}/post?q=1")
    assert done.stdout == b"kept" and done.stderr.decode() == f"https://a.example:{tls}/post?q=1", done


@needs("curl")
def test_curl_websocket_by_hand(secure):
    """An upgrade over TLS: curl takes whatever comes behind the 101."""
    def script(peer):
        secure["main"].read(peer)
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbehind it")
        peer.shut()
        peer.ended()

    secure["main"].program(script)
    port = secure.ports["tls"]
    done = run("curl", "-sS", "-i", "--http1.1", "--max-time", "20", "--resolve", f"a.example:{port}:127.0.0.1", "--cacert",
               secure.pki.ca.file, "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
               "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==", f"https://a.example:{port}/ws")
    assert b"101" in done.stdout.split(b"\r\n")[0] and done.stdout.endswith(b"behind it"), done


# ---- nghttp, h2load ----

@needs("nghttp")
@pytest.mark.parametrize("listener, scheme", [("tls", "https"), ("plain", "http")])
def test_nghttp(secure, listener, scheme):
    serve(secure)
    port = secure.ports[listener]
    urls = [f"{scheme}://127.0.0.1:{port}{path}" for path in ("/small", "/big", "/empty", "/small?2")]
    done = run("nghttp", "-nsv", "--no-verify-peer", "-H", "host: a.example", "-H", ":authority: a.example", *urls, text=True)
    assert done.returncode == 0 and len(re.findall(r":status: 200", done.stdout)) == 4, done
    assert len(re.findall(r"recv DATA frame", done.stdout)) > 3 and "error_code=NO_ERROR(0x00)" in done.stdout
    assert "RST_STREAM" not in done.stdout


@needs("nghttp")
def test_nghttp_sends_a_body_with_padding_and_trailers(secure, tmp_path):
    serve(secure)
    file = tmp_path / "body"
    file.write_bytes(os.urandom(200_000))
    done = run("nghttp", "-d", file, "--padding=100", "--trailer", "x-trailer: end", "--no-verify-peer",
               f"https://127.0.0.1:{secure.ports['tls']}/post")
    assert done.returncode == 0 and done.stdout == file.read_bytes()


@needs("nghttp")
def test_nghttp_asks_for_an_upgrade_to_h2c(secure):
    """RFC 9113 has none any more: answered in HTTP/1.1, and nothing of it goes on."""
    serve(secure)
    done = run("nghttp", "-u", f"http://127.0.0.1:{secure.ports['plain']}/small", text=True)
    assert "HTTP Upgrade failed" in done.stdout + done.stderr, done
    assert all(r.get("Upgrade") is None and r.get("HTTP2-Settings") is None for r in secure["main"].requests)


@needs("h2load")
@pytest.mark.parametrize("listener, scheme, options", [
    ("tls", "https", ["-c", "10", "-m", "10"]), ("plain", "http", ["-c", "10", "-m", "10"]),
    ("tls", "https", ["-c", "1", "-m", "100"]), ("tls", "https", ["-c", "8", "--h1"]),
    ("tls", "https", ["-c", "4", "-m", "20", "-d", "BODY"]), ("tls", "https", ["-c", "4", "-m", "10", "-w", "10", "-W", "10"])],
    ids=["tls", "h2c", "one connection", "h1", "post", "small windows"])
def test_h2load(secure, tmp_path, listener, scheme, options):
    serve(secure)
    body = tmp_path / "body"
    body.write_bytes(os.urandom(20_000))
    options = [str(body) if o == "BODY" else o for o in options]
    count = 300
    done = run("h2load", "-n", count, *options, f"{scheme}://127.0.0.1:{secure.ports[listener]}/small", text=True)
    assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout, done
    assert f"{count} 2xx" in done.stdout


# ---- a browser ----

PAGE = """<!doctype html><html><body>waiting<script>
let n = 0, said = []
const socket = new WebSocket(`wss://${location.host}/ws`)
socket.onopen = () => socket.send("hello")
socket.onmessage = event => { said.push("socket " + event.data); show(); socket.send("done") }
socket.onerror = event => { said.push("socket failed"); show(); fetch("/failed") }
function show() { document.body.dataset.result = [n + " scripts", ...said].join(", ") }
</script>%s<script>
const request = new XMLHttpRequest()
request.open("POST", "/post", false)
request.send("a body")
said.push("post " + request.responseText)
show()
</script><img src="/wait"></body></html>""" % "".join(f'<script src="/script/{i}"></script>' for i in range(40))


def frame_of(peer):
    """A WebSocket message of a client (RFC 6455 5.2), short."""
    head = peer.exactly(2)
    size = head[1] & 127
    assert size < 126 and head[1] & 128
    mask, data = peer.exactly(4), peer.exactly(size)
    return head[0] & 15, bytes(b ^ mask[i % 4] for i, b in enumerate(data))


@needs("chromium")
@pytest.mark.parametrize("listener", ["tls", "http1"])
def test_chromium(secure, tmp_path, listener):
    """A page with forty scripts, a POST and a WebSocket, which is an extended CONNECT where HTTP/2 is spoken."""
    done, upstream = threading.Event(), secure["main"]

    def reply(message):
        path = message.target
        if path == "/page":
            return answer(PAGE.encode(), "200 OK", "Content-Type: text/html", "Cache-Control: no-store")
        if path.startswith("/script/"):
            return answer(b"n++", "200 OK", "Content-Type: text/javascript")
        if path == "/wait":
            done.wait(30)
            return answer(b"", "404 Not Found")
        if path == "/failed":
            done.set()
        return answer(message.body)

    def script(peer):
        while (message := upstream.read(peer)) is not None:
            if not message.get("Upgrade"):
                peer.send(reply(message))
                continue
            key = message.get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                      b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept.encode())
            while (got := frame_of(peer))[0] == 1:
                if got[1] == b"done":
                    done.set()
                else:
                    peer.send(bytes([0x81, len(got[1])]) + got[1])
            return

    upstream.program(script)
    port = secure.ports[listener]
    shown = run("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
                f"--user-data-dir={tmp_path}/profile", f"--ignore-certificate-errors-spki-list={secure.one.spki_sha256}",
                "--host-resolver-rules=MAP a.example 127.0.0.1, MAP * ~NOTFOUND", "--dump-dom", f"https://a.example:{port}/page",
                env={**os.environ, "HOME": str(tmp_path), "DBUS_SESSION_BUS_ADDRESS": "disabled:"}, text=True)
    assert 'data-result="40 scripts, ' in shown.stdout, (shown.stdout, shown.stderr, upstream.requests)
    assert "post a body" in shown.stdout and "socket hello" in shown.stdout, shown.stdout
    want = "2.0 sallyport" if listener == "tls" else "1.1 sallyport"
    assert {r.get("Via") for r in upstream.requests} == {want}


# ---- testssl ----

@needs("testssl")
def test_testssl(secure, tmp_path):
    """Protocols and what was wrong in other programs; the whole of it: scan_tls.py."""
    found = run("/usr/bin/python3", SCANNER, f"127.0.0.1:{secure.ports['tls']}", "--quick", timeout=80, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
