"""Certificates of clients: who is let in, and what the upstream is told. X-Forwarded-Client-Cert is in Envoy's syntax."""
import json

import pytest

from certificates import DAY
from secure import Client, get, tls_gateway
from wire import STRANGER

XFCC = "X-Forwarded-Client-Cert"
FORGED = [f"{XFCC}: Hash=00;Subject=\"CN=root\"", f"{XFCC.lower()}: By=x", "Client-Cert: :AAAA:",
          "Client-Cert-Chain: :AAAA:", "X_Forwarded_Client_Cert: x", "Client_Cert: :AAAA:"]


@pytest.fixture
def me(pki):
    return pki.clients.issue("me.example", "URI:spiffe://x/y", "email:me@example.com", "IP:10.0.0.1", client=True,
                             common_name="me", organisation="House")


def refused(connect):
    """In TLS 1.3 the client learns after its own Finished that it was refused."""
    with pytest.raises(OSError) as caught:
        client = connect()
        client.send(get())
        got = client.response()
        raise AssertionError(f"answered: {got}")
    return str(caught.value)


def said(message):
    """The one element of the upstream's X-Forwarded-Client-Cert as a list of (key, value)."""
    value, pairs = message.get(XFCC), []
    while value:
        key, _, value = value.partition("=")
        if value.startswith('"'):
            end = 1
            while value[end] != '"':
                end += 2 if value[end] == "\\" else 1
            pairs.append((key, value[1:end].replace('\\"', '"').replace("\\\\", "\\")))
            value = value[end + 1:]
            assert value[:1] in ("", ";"), message
            value = value[1:]
        else:
            one, _, value = value.partition(";")
            pairs.append((key, one))
    return pairs


@pytest.mark.parametrize("listener", ["asked", "required"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_verified_certificate_reaches_the_upstream(secure, me, listener, version):
    context = secure.pki.client_context(certificate=me, version=version)
    client = secure.client(listener, context)
    assert client.ask(get("/", "a.example", *FORGED)).status == 200
    seen = secure["main"].only()
    assert said(seen) == [("Hash", me.fingerprint), ("Subject", "CN=me,O=House"), ("DNS", "me.example"),
                          ("URI", "spiffe://x/y"), ("email", "me@example.com"), ("IP", "10.0.0.1")]
    assert "client-cert" not in seen.names and "client-cert-chain" not in seen.names

    resumed = secure.client(listener, context, session=client.tls.session)
    assert resumed.resumed and resumed.ask(get()).status == 200
    assert secure["main"].requests[1].get(XFCC) == seen.get(XFCC)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_without_a_certificate(secure, version):
    context = secure.pki.client_context(version=version)
    client = secure.client("asked", context)
    assert client.ask(get("/", "a.example", *FORGED)).status == 200
    assert XFCC.lower() not in secure["main"].only().names
    why = refused(lambda: secure.client("required", context))
    assert ("CERTIFICATE_REQUIRED" if version == "1.3" else "HANDSHAKE_FAILURE") in why
    assert len(secure["main"].requests) == 1


@pytest.mark.parametrize("listener", ["tls", "asked", "fast", "plain"])
def test_what_strangers_say_about_certificates_is_removed(secure, listener):
    client = secure.raw("plain") if listener == "plain" else secure.client(listener)
    assert client.ask(get("/", "a.example", *FORGED)).status == 200
    assert not [name for name in secure["main"].only().names if "client" in name]


def test_what_a_trusted_proxy_says_goes_on(secure):
    client = secure.client("trusted")
    assert client.ask(get("/", "a.example", f"{XFCC}: Hash=1")).status == 200
    assert secure["main"].only().get(XFCC) == "Hash=1"
    stranger = secure.client("trusted", source=STRANGER)
    assert stranger.ask(get("/", "a.example", f"{XFCC}: Hash=1")).status == 200
    assert secure["main"].requests[1].get(XFCC) is None


@pytest.mark.parametrize("listener", ["asked", "required"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("what, alert", [("other", "UNKNOWN_CA"), ("expired", "CERTIFICATE_EXPIRED"),
                                         ("not_yet", "BAD_CERTIFICATE"), ("server", "UNSUPPORTED_CERTIFICATE"),
                                         ("self", "UNKNOWN_CA")])
def test_bad_certificates_are_refused(secure, listener, version, what, alert):
    """Also where a certificate is optional: a bad one is no none."""
    pki = secure.pki
    bad = {"other": lambda: pki.other.issue("me", client=True),
           "expired": lambda: pki.clients.issue("me", client=True, begins=-9 * DAY, ends=-DAY),
           "not_yet": lambda: pki.clients.issue("me", client=True, begins=DAY),
           "server": lambda: pki.clients.issue("me"),   # extended key usage: serverAuth alone
           "self": lambda: pki.other.own}[what]()
    why = refused(lambda: secure.client(listener, pki.client_context(certificate=bad, version=version)))
    assert alert in why
    assert not secure["main"].requests


def test_no_certificate_is_asked_for_where_none_is_wanted(secure, me):
    client = secure.client("tls", secure.pki.client_context(certificate=me))
    assert client.ask(get()).status == 200 and XFCC.lower() not in secure["main"].only().names


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_sessions_do_not_wander_between_listeners(secure, me, version):
    """A session without a certificate is none where one is required; both ask for the same authority."""
    context = secure.pki.client_context(version=version)
    client = secure.client("asked", context)
    assert client.ask(get()).status == 200
    for listener in ("required", "tls"):
        try:
            other = secure.client(listener, context, session=client.tls.session)
        except OSError:
            assert listener == "required"
        else:
            assert not other.resumed
            if listener == "required":
                with pytest.raises(OSError):
                    other.ask(get())
    with_one = secure.pki.client_context(version=version, certificate=me)
    client = secure.client("required", with_one)
    assert client.ask(get()).status == 200
    other = secure.client("asked", with_one, session=client.tls.session)
    assert not other.resumed


def test_hostile_subjects_stay_in_their_place(secure):
    """Quotes, separators, line ends and bytes beyond ASCII of a certificate that the authority did sign."""
    pki = secure.pki
    subject = 'a",;=\\ b\r\nX-Evil: 1é'
    hostile = pki.clients.issue("URI:spiffe://x/a,b;c=%22d", client=True, common_name=subject, organisation="<#+>")
    client = secure.client("required", pki.client_context(certificate=hostile))
    assert client.ask(get()).status == 200
    seen = secure["main"].only()
    assert "x-evil" not in seen.names
    pairs = said(seen)
    assert [key for key, _ in pairs] == ["Hash", "Subject", "URI"] and pairs[0][1] == hostile.fingerprint
    assert all(32 <= ord(c) < 127 for c in seen.get(XFCC))
    assert "," not in pairs[2][1] and ";" not in pairs[2][1]


def test_more_names_than_can_be_told(secure):
    """Cut short they would be another's: refused."""
    names = [f"host-{i}.clients.example" for i in range(1000)]
    refused(lambda: secure.client("required", secure.pki.client_context(
        certificate=secure.pki.clients.issue(*names, client=True))))
    assert not secure["main"].requests


def test_many_names(secure):
    pki = secure.pki
    names = [f"host-{i}.clients.example" for i in range(200)]
    many = pki.clients.issue(*names, client=True, common_name="many")
    client = secure.client("required", pki.client_context(certificate=many))
    got = client.ask(get())
    assert got.status == 200
    listed = [value for key, value in said(secure["main"].only()) if key == "DNS"]
    assert listed == names


def test_a_new_authority_counts_at_once(make, pki):
    gateway = tls_gateway(make, pki, client_ca=pki.clients.file, client_auth="require").start()
    context = pki.client_context(certificate=pki.clients.issue("me", client=True))
    open_before = Client(gateway.tls_port, context)
    assert open_before.ask(get()).status == 200
    config = json.loads(json.dumps(gateway.config))
    config["listeners"][0]["tls"]["client_ca"] = pki.other.file
    gateway.reload_everywhere(config)
    assert "UNKNOWN_CA" in refused(lambda: Client(gateway.tls_port, context))
    other = pki.client_context(certificate=pki.other.issue("me", client=True))
    assert Client(gateway.tls_port, other).ask(get()).status == 200
    assert open_before.ask(get()).status == 200   # live connections are not touched
    gateway.stop()
