"""TLS to clients: versions, ciphers, ALPN, the certificate each is shown, sessions, and what is refused."""
import base64
import json
import os
import re
import signal
import ssl
import subprocess

import pytest

from certificates import DAY
from gateway import free_port, until
from peers import answer
from secure import Client, get, s_client, tls_gateway


# ---- versions and ciphers ----

@pytest.mark.parametrize("version, name", [("1.2", "TLSv1.2"), ("1.3", "TLSv1.3")])
def test_versions(secure, version, name):
    secure["main"].program(reply=lambda r: answer(r.target.encode()))
    client = secure.client(context=secure.pki.client_context(version=version))
    assert client.version == name and client.tls.compression() is None
    assert client.ask(get("/x")).body == b"/x"
    assert client.ask(get("/y")).body == b"/y"


@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_older_versions_are_refused(secure, option):
    text = s_client(secure.ports["tls"], option, "-cipher", "ALL:@SECLEVEL=0")
    assert "alert protocol version" in text and "Cipher is (NONE)" in text, text


def test_min_version(secure):
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        secure.client("newest", secure.pki.client_context(version="1.2"))
    assert secure.client("newest").version == "TLSv1.3"


@pytest.mark.parametrize("suite", [
    "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"])
def test_ciphers_of_tls_1_2(secure, suite):
    ca = secure.pki.rsa_ca if "RSA-" in suite.replace("ECDSA", "") else secure.pki.ca
    client = secure.client(context=secure.pki.client_context(ca=ca, version="1.2", ciphers=suite))
    assert client.tls.cipher()[0] == suite
    assert client.ask(get()).status == 200


@pytest.mark.parametrize("suite", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256",
                                   "ECDHE-RSA-AES256-SHA384", "AES256-SHA", "DHE-RSA-AES128-GCM-SHA256",
                                   "aNULL", "ECDHE-ECDSA-NULL-SHA"])
def test_weak_ciphers_are_refused(secure, suite):
    context = secure.pki.client_context(version="1.2", check=False)
    context.set_ciphers(f"{suite}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        secure.client(context=context)


@pytest.mark.parametrize("first, chosen", [("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
                                           ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"),
                                           ("TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256")])
def test_our_order_decides_but_for_who_has_no_aes(secure, first, chosen):
    rest = [s for s in ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256") if s != first]
    text = s_client(secure.ports["tls"], "-tls1_3", "-ciphersuites", ":".join([first, *rest]))
    assert f"Cipher is {chosen}" in text, text


@pytest.mark.parametrize("group, agreed", [("X25519", True), ("P-256", True), ("P-384", True), ("P-521", False), ("X448", False)])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_groups(secure, group, agreed, version):
    text = s_client(secure.ports["tls"], version, "-groups", group, "-servername", "a.example")
    assert ("Cipher is (NONE)" not in text) == agreed, text


# ---- ALPN ----

@pytest.mark.parametrize("listener, offered, agreed", [
    ("tls", ["h2", "http/1.1"], "h2"), ("tls", ["http/1.1", "h2"], "h2"), ("tls", ["http/1.1"], "http/1.1"),
    ("tls", ["spdy/3", "http/1.1"], "http/1.1"), ("tls", None, None),
    ("http1", ["h2", "http/1.1"], "http/1.1"), ("http1", None, None), ("h2", ["h2", "http/1.1"], "h2")])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_alpn(secure, listener, offered, agreed, version):
    client = secure.client(listener, secure.pki.client_context(alpn=offered, version=version))
    assert client.alpn == agreed
    if agreed != "h2":
        assert client.ask(get()).status == 200
    else:
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        while len(client.received) < 9:
            assert client.more()
        assert client.received[3] == 4   # SETTINGS


@pytest.mark.parametrize("listener, offered", [("tls", ["imap"]), ("tls", ["http/1.0", "http/0.9"]), ("http1", ["h2"]),
                                               ("h2", ["http/1.1"])])
def test_alpn_without_a_common_protocol(secure, listener, offered):
    """RFC 7301 3.2: the alert, and no guess."""
    with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        secure.client(listener, secure.pki.client_context(alpn=offered))


# ---- the certificate ----

def shown(secure, name, listener="tls", **more):
    """The certificate that a client is shown who asks for this name."""
    client = secure.client(listener, secure.pki.client_context(check=False, **more), server_name=name)
    return client.tls.getpeercert(binary_form=True)


def test_sni(secure):
    assert shown(secure, "a.example") == secure.one.der
    assert shown(secure, "A.Example") == secure.one.der
    assert shown(secure, "b.example") == secure.pair.der and shown(secure, "c.example") == secure.pair.der
    assert shown(secure, "exact.example") == secure.wild.der


def test_sni_wildcards(secure):
    assert shown(secure, "x.wild.example") == secure.wild.der
    assert shown(secure, "in.wild.example") == secure.inner.der      # the exact name wins
    assert shown(secure, "y.x.wild.example") == secure.one.der       # one label only: the fallback
    assert shown(secure, "wild.example") == secure.one.der


def test_no_sni_and_unknown_names_get_the_first(secure):
    assert shown(secure, None) == secure.one.der
    for name in ("nobody.example", "a.example.evil", "xa.example", "127.0.0.1"):
        assert shown(secure, name) == secure.one.der


def test_the_chain_is_sent(secure):
    """The client trusts the root alone, and checks the name itself."""
    client = secure.client(server_name="x.wild.example")
    assert client.ask(get("/", "x.wild.example")).status == 200


def test_strict_sni(secure):
    context = secure.pki.client_context(check=False)
    for name in ("nobody.example", "y.x.wild.example", "wild.example", None):
        with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            secure.client("strict", context, server_name=name)
    assert shown(secure, "x.wild.example", "strict") == secure.wild.der


@pytest.mark.parametrize("name", ["a.example", None])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_ecdsa_and_rsa_side_by_side(secure, name, version):
    """The client's signature algorithms decide; with both, ECDSA is preferred."""
    server_name = ["-servername", name] if name else ["-noservername"]

    def kind(*algorithms):
        return re.search(r"Peer signature type: (\S+)",
                         s_client(secure.ports["tls"], version, *server_name, *algorithms))[1]

    assert kind("-sigalgs", "RSA-PSS+SHA256") == "RSA-PSS"
    assert kind("-sigalgs", "ECDSA+SHA256") == "ECDSA"
    assert kind("-sigalgs", "ECDSA+SHA256:RSA-PSS+SHA256") == "ECDSA"
    assert kind() == "ECDSA"


def test_a_name_without_a_certificate_of_the_kind_is_refused(secure):
    text = s_client(secure.ports["tls"], "-servername", "b.example", "-sigalgs", "RSA-PSS+SHA256")
    assert "Cipher is (NONE)" in text and "alert" in text, text


# ---- 421: a connection is for the names of its certificate ----

@pytest.mark.parametrize("name, host", [("b.example", "c.example"), ("b.example", "B.EXAMPLE:8443"),
                                        ("x.wild.example", "y.wild.example"), ("x.wild.example", "exact.example"),
                                        ("nobody.example", "nobody.example"), ("nobody.example", "a.example"),
                                        ("a.example", "nobody.example"), (None, "a.example"), (None, "127.0.0.1:1")])
def test_names_of_the_same_certificate(secure, name, host):
    client = secure.client(context=secure.pki.client_context(check=False), server_name=name)
    assert client.ask(get("/", host)).status == 200
    assert secure["main"].only().get("Host").lower() == host.lower()


@pytest.mark.parametrize("name, host", [("a.example", "b.example"), ("b.example", "a.example"),
                                        ("b.example", "nobody.example"), ("x.wild.example", "in.wild.example"),
                                        ("x.wild.example", "y.x.wild.example")])
def test_names_of_another_certificate_are_421(secure, name, host):
    client = secure.client(context=secure.pki.client_context(check=False), server_name=name)
    got = client.ask(get("/", host))
    assert got.status == 421 and got.get("Content-Type") == "application/problem+json", got
    assert got.json["status"] == 421 and got.json["code"] == "misdirected_request"
    assert not secure["main"].requests
    assert got.get("Connection") == "close" or client.ask(get("/", name)).status == 200


# ---- sessions ----

def session_of(client):
    """To be resumed; with TLS 1.3 tickets come behind the handshake."""
    assert client.ask(get()).status == 200
    assert client.tls.session.has_ticket
    return client.tls.session


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_sessions_are_resumed(secure, version):
    context = secure.pki.client_context(version=version)
    first = secure.client(context=context)
    assert not first.resumed
    session = session_of(first)
    first.shut()
    second = secure.client(context=context, session=session)
    assert second.resumed and second.ask(get()).status == 200
    third = secure.client(context=context, session=session_of(second))
    assert third.resumed and third.ask(get()).status == 200


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_session_of_another_name_gives_nothing_away(secure, version):
    """One site is served, not both: in TLS 1.2 the one of the session, where it is resumed, else the one asked for."""
    context = secure.pki.client_context(version=version, check=False)
    session = session_of(secure.client(context=context))
    client = secure.client(context=context, session=session, server_name="b.example")
    served = {host: client.ask(get("/", host)).status for host in ("a.example", "b.example")}
    assert sorted(served.values()) == [200, 421]
    assert served["b.example"] == 200 or (client.resumed and version == "1.2")


def test_a_ticket_that_was_tampered_with_is_a_full_handshake(secure, tmp_path):
    file = tmp_path / "session.pem"
    port = secure.ports["tls"]
    text = s_client(port, "-tls1_2", "-servername", "a.example", "-sess_out", str(file))
    assert "New, TLSv1.2" in text
    assert "Reused, TLSv1.2" in s_client(port, "-tls1_2", "-servername", "a.example", "-sess_in", str(file))
    lines = file.read_text().splitlines()
    der = bytearray(base64.b64decode("".join(lines[1:-1])))
    ticket = der.index(bytes.fromhex(re.search(r"TLS session ticket:\s+0000 - ((?:[0-9a-f]{2}[ -]){15})", text)[1]
                                     .replace("-", " ").strip()))
    for place in (0, 20, 60, 100):
        der[ticket + place] ^= 1
        file.write_text("\n".join([lines[0], *re.findall(".{1,64}", base64.b64encode(der).decode()), lines[-1], ""]))
        assert "New, TLSv1.2" in s_client(port, "-tls1_2", "-servername", "a.example", "-sess_in", str(file))
        der[ticket + place] ^= 1


def test_an_encrypted_message_is_taken_for_no_hello(secure):
    """The client's Finished of a resumed TLS 1.2 session begins with bytes of its own choice: here with those of a
    ClientHello of 16 MiB. It is refused for what it is, in an alert that is encrypted."""
    context = secure.pki.client_context(version="1.2")
    session = session_of(secure.client(context=context))
    client = secure.client(context=context, session=session, handshake=False)
    while True:
        try:
            client.tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            client.flush()
            client.incoming.write(client.socket.recv(65536))
    flight = bytearray(client.outgoing.read())
    assert client.tls.session_reused and flight[0] == 20 and flight[6] == 22   # ChangeCipherSpec, Finished
    flight[11:15] = b"\x01\xff\xff\xff"
    client.socket.sendall(flight)
    with pytest.raises(ssl.SSLError, match="(?i)alert bad record mac"):
        client.does(client.tls.read, 100)


def resumptions(port, context, session, count):
    """How many of so many connections are resumed."""
    total = 0
    for _ in range(count):
        client = Client(port, context, session=session)
        assert client.ask(get()).status == 200
        total += client.resumed
        client.close()
    return total


def all_resumed(gateway, sessions):
    for context, session in sessions:
        assert resumptions(gateway.tls_port, context, session, 8) == 8   # two workers share the port


def test_sessions_live_through_everything(make, pki):
    """On every worker, after a reload, after an upgrade, after the worker process was killed."""
    gateway = tls_gateway(make, pki).start()
    sessions = []
    for version in ("1.2", "1.3"):
        context = pki.client_context(version=version)
        sessions.append((context, session_of(Client(gateway.tls_port, context))))
    all_resumed(gateway, sessions)

    gateway.reload_everywhere({**gateway.config, "drain": {"delay": "1s", "timeout": "20s"}})
    all_resumed(gateway, sessions)

    victim = gateway.worker()
    os.kill(victim, signal.SIGKILL)
    until(lambda: gateway.workers() not in ([], [victim]), "another worker process")
    gateway.wait_ready()
    all_resumed(gateway, sessions)

    old = gateway.worker()
    gateway.signal(signal.SIGUSR2)
    gateway.wait_log(f"has taken over from {old}")
    all_resumed(gateway, sessions)
    gateway.stop()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_no_session_outlives_the_policy_it_was_made_under(make, pki, version):
    """A client that needed no certificate then needs one now."""
    gateway = tls_gateway(make, pki).start()
    context = pki.client_context(version=version)
    session = session_of(Client(gateway.tls_port, context))
    config = json.loads(json.dumps(gateway.config))
    config["listeners"][0]["tls"].update(client_ca=pki.clients.file, client_auth="require")
    gateway.reload_everywhere(config)
    with pytest.raises(OSError):
        client = Client(gateway.tls_port, context, session=session)
        assert not client.resumed
        client.ask(get())
        raise AssertionError("served without a certificate")
    context = pki.client_context(version=version, certificate=pki.clients.issue("me", client=True))
    session = session_of(Client(gateway.tls_port, context))
    assert resumptions(gateway.tls_port, context, session, 4) == 4

    config["listeners"][0]["tls"].update(client_ca=pki.other.file)
    gateway.reload_everywhere(config)
    with pytest.raises(OSError):
        client = Client(gateway.tls_port, context, session=session)
        client.ask(get())
        raise AssertionError("served with a certificate of an authority that is trusted no more")
    gateway.stop()


def test_min_version_counts_for_sessions(make, pki):
    gateway = tls_gateway(make, pki).start()
    context = pki.client_context(version="1.2")
    session = session_of(Client(gateway.tls_port, context))
    config = json.loads(json.dumps(gateway.config))
    config["listeners"][0]["tls"]["min_version"] = "1.3"
    gateway.reload_everywhere(config)
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        Client(gateway.tls_port, context, session=session)
    gateway.stop()


# ---- what is refused ----

def elements(der):
    """(tag, whole) of each element inside a DER sequence."""
    def size(at):
        if der[at] < 128:
            return at + 1, der[at]
        return at + 1 + der[at] - 128, int.from_bytes(der[at + 1:at + 1 + der[at] - 128], "big")

    at, _ = size(1)
    while at < len(der):
        begin, length = size(at + 1)
        yield der[at], der[at:begin + length]
        at = begin + length


def allowing_early_data(pem):
    """A client's session as if the server had allowed 16 KiB of it: [15] max_early_data in OpenSSL's SSL_SESSION."""
    lines = pem.splitlines()
    der = base64.b64decode("".join(lines[1:-1]))
    parts = [whole for tag, whole in elements(der) if tag != 0xaf] + [bytes.fromhex("af0402024000")]
    body = b"".join(sorted(parts, key=lambda part: part[0] if part[0] >= 0xa0 else 0))
    der = b"\x30\x82" + len(body).to_bytes(2, "big") + body
    return "\n".join([lines[0], *re.findall(".{1,64}", base64.b64encode(der).decode()), lines[-1], ""])


def test_no_early_data(secure, tmp_path):
    """Tickets do not allow it; a client that sends it all the same has it ignored (RFC 8446 4.2.10)."""
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_bytes(get("/early"))
    port = secure.ports["tls"]
    options = ["-tls1_3", "-servername", "a.example", "-ign_eof"]
    text = s_client(port, *options, "-sess_out", str(session), text=get("/", "a.example", "Connection: close"))
    assert "Max Early Data: 0" in text, text
    session.write_text(allowing_early_data(session.read_text()))
    secure["main"].program()
    text = s_client(port, *options, "-sess_in", str(session), "-early_data", str(early),
                    text=get("/late", "a.example", "Connection: close"))
    assert "Early data was rejected" in text, text
    assert [r.target for r in secure["main"].requests] == ["/late"]


def test_renegotiation_is_refused(secure):
    process = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{secure.ports['tls']}", "-tls1_2",
                                "-servername", "a.example"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    try:
        text = b""
        while b"\n---\n" not in text[text.find(b"SSL-Session"):] or b"SSL-Session" not in text:
            text += process.stdout.readline()
        process.stdin.write(b"R\n")
        process.stdin.flush()
        text, _ = process.communicate(timeout=30)   # ends by itself: the handshake is refused
    finally:
        process.kill()
        process.wait()
    assert b"RENEGOTIATING" in text and process.returncode != 0, text
    assert b"no renegotiation" in text or b"unexpected" in text or b"handshake failure" in text or b"eof" in text, text
    assert secure.client().ask(get()).status == 200


# ---- OCSP ----

def test_ocsp_is_stapled(secure):
    text = s_client(secure.ports["stapled"], "-status", "-servername", "a.example", "-sigalgs", "ECDSA+SHA256")
    assert "OCSP Response Status: successful" in text and "Cert Status: good" in text, text
    for options in (["-servername", "b.example"], ["-servername", "a.example", "-sigalgs", "RSA-PSS+SHA256"]):
        text = s_client(secure.ports["stapled"], "-status", *options)   # those have none
        assert "OCSP response: no response sent" in text, text
    text = s_client(secure.ports["stapled"], "-servername", "a.example")
    assert "OCSP Response" not in text   # not asked for


def test_an_ocsp_response_that_is_over_is_not_stapled(make, pki):
    certificate = pki.ca.issue("old.example")
    files = {**certificate.files, "ocsp": pki.ca.ocsp(certificate, begins=-3 * DAY, ends=-DAY)}
    port = free_port()
    gateway = make({"listeners": [{"name": "tls", "address": f"127.0.0.1:{port}", "tls": {"certificates": [files]}}]})
    gateway.start()
    assert "OCSP response: no response sent" in s_client(port, "-status", "-servername", "old.example")
    gateway.stop()
