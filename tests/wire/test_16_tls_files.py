"""A running gateway and its certificate files: bad ones change nothing, new ones come into force, and live connections
notice neither. What is said about files: test_14_tls_files.py.
"""
import json
import re
import shutil
import subprocess

import pytest

from certificates import DAY
from gateway import BINARY, until
from secure import Client, get, tls_gateway


def serial(gateway, pki, name="a.example"):
    client = Client(gateway.tls_port, pki.client_context(check=False), server_name=name)
    try:
        return client.tls.getpeercert(binary_form=True)
    finally:
        client.close()


def put(certificate, directory, name="live"):
    """Its files under names that stay; replaced in one step each."""
    for source, suffix in ((certificate.cert, "pem"), (certificate.key, "key")):
        new = directory / f"{name}.new"
        shutil.copy(source, new)
        new.rename(directory / f"{name}.{suffix}")
    return {"cert": str(directory / f"{name}.pem"), "key": str(directory / f"{name}.key")}


def with_certificates(gateway, *files, **tls):
    config = json.loads(json.dumps(gateway.config))
    config["listeners"][0]["tls"].update(certificates=list(files), **tls)
    return config


def check(gateway, config):
    gateway.write(config)
    return subprocess.run([str(BINARY), "check", "-c", str(gateway.file)], capture_output=True, text=True, timeout=60)


@pytest.fixture
def bad(pki, tmp_path):
    """{what: (settings of tls, the file that is to be named, a word of the reason)}"""
    good, other = pki.ca.issue("a.example"), pki.ca.issue("b.example")

    def file(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return str(path)

    garbage, empty = file("garbage.pem", b"no certificate at all\n"), file("empty.pem", b"")
    cut = file("cut.pem", good.pem[:len(good.pem) // 2])
    locked = file("locked.key", subprocess.run(
        ["openssl", "ec", "-in", str(good.key), "-aes128", "-passout", "pass:secret"], capture_output=True, check=True).stdout)
    expired, early = pki.expired("a.example"), pki.not_yet("a.example")
    missing = str(tmp_path / "missing.pem")
    staple = pki.ca.ocsp(other)

    def one(cert=good.cert, key=good.key, **more):
        return {"certificates": [{"cert": str(cert), "key": str(key), **more}]}

    client = {**one(), "client_auth": "require"}
    return {
        "missing cert": (one(cert=missing), missing, "No such file"),
        "missing key": (one(key=missing), missing, "No such file"),
        "a directory": (one(cert=tmp_path), str(tmp_path), "directory"),
        "garbage cert": (one(cert=garbage), garbage, "certificate"),
        "garbage key": (one(key=garbage), garbage, "key"),
        "empty cert": (one(cert=empty), empty, "certificate"),
        "cut cert": (one(cert=cut), cut, "certificate"),
        "swapped": (one(cert=good.key, key=good.cert), str(good.key), "certificate"),
        "another's key": (one(key=other.key), str(other.key), "key"),
        "locked key": (one(key=locked), locked, "encrypted"),
        "expired": (one(cert=expired.cert, key=expired.key), str(expired.cert), "expired"),
        "ocsp of another": (one(ocsp=staple), staple, "certificate"),
        "ocsp garbage": (one(ocsp=garbage), garbage, "OCSP"),
        "client_ca missing": ({**client, "client_ca": missing}, missing, "No such file"),
        "client_ca garbage": ({**client, "client_ca": garbage}, garbage, "certificate"),
    }


BAD = ["missing cert", "missing key", "a directory", "garbage cert", "garbage key", "empty cert", "cut cert", "swapped",
       "another's key", "locked key", "expired", "ocsp of another", "ocsp garbage", "client_ca missing",
       "client_ca garbage"]


def test_bad_files_are_told_by_check_and_by_a_reload(make, pki, bad):
    """Which file, why, and where the configuration names it; a running gateway keeps what it has."""
    gateway = tls_gateway(make, pki).start()
    before = serial(gateway, pki)
    for number, what in enumerate(BAD):
        settings, file, why = bad[what]
        config = json.loads(json.dumps(gateway.config))
        config["listeners"][0]["tls"] = settings
        done = check(gateway, config)
        line = next((line for line in done.stderr.splitlines() if file in line), "")
        assert done.returncode == 1 and why.lower() in line.replace(file, "").lower(), (what, done)
        assert re.match(rf"{re.escape(str(gateway.file))}:\d+:\d+: listeners\[0\]\.tls", line), (what, line)
        gateway.reload(config, good=False)
        assert file in gateway.log(), what
        assert gateway.metrics()['sallyport_config_reloads_total{result="failure"}'] == number + 1
        assert serial(gateway, pki) == before, what
    assert set(bad) == set(BAD)
    gateway.stop()


@pytest.mark.parametrize("what", ["missing key", "another's key", "expired"])
def test_a_start_with_bad_files_ends(make, pki, bad, what):
    gateway = tls_gateway(make, pki)
    config = json.loads(json.dumps(gateway.config))
    config["listeners"][0]["tls"], file, _ = bad[what]
    gateway.write(config)
    gateway.start(wait=False)
    assert gateway.wait() == 1 and file in gateway.log()


def test_a_reload_reads_the_files_again(make, pki, tmp_path):
    first, second = pki.ca.issue("a.example"), pki.ca.issue("a.example", ends=60 * DAY)
    files = put(first, tmp_path)
    gateway = tls_gateway(make, pki)
    gateway.write(with_certificates(gateway, files))
    gateway.start()
    live = Client(gateway.tls_port, pki.client_context())
    assert live.ask(get()).status == 200 and serial(gateway, pki) == first.der
    put(second, tmp_path)
    gateway.reload_everywhere()
    assert serial(gateway, pki) == second.der
    assert live.ask(get()).status == 200   # live connections are not touched
    expiry = gateway.metrics()['sallyport_tls_certificate_expiry_timestamp_seconds{name="a.example"}']
    until(lambda: expiry < first.x509.not_valid_after.timestamp() - 20 * 86400, "the new end as a metric")
    gateway.stop()


def test_files_that_change_are_read_without_a_reload(make, pki, tmp_path):
    """As certbot and mounted secrets change them: by renaming, the directory too."""
    first, second = pki.ca.issue("a.example"), pki.ca.issue("a.example", ends=60 * DAY)
    third = pki.ca.issue("a.example", ends=61 * DAY)
    old, new = tmp_path / "..old", tmp_path / "..new"
    for directory, certificate in ((old, first), (new, third)):
        directory.mkdir()
        put(certificate, directory)
    link = tmp_path / "data"
    link.symlink_to(old.name)
    gateway = tls_gateway(make, pki)
    gateway.write(with_certificates(gateway, {"cert": str(link / "live.pem"), "key": str(link / "live.key")}))
    gateway.start()
    live = Client(gateway.tls_port, pki.client_context())
    assert live.ask(get()).status == 200 and serial(gateway, pki) == first.der
    put(second, old)
    until(lambda: serial(gateway, pki) == second.der, "the new certificate")
    other = tmp_path / "link.new"
    other.symlink_to(new.name)
    other.rename(link)
    until(lambda: serial(gateway, pki) == third.der, "the newest certificate")
    assert live.ask(get()).status == 200
    gateway.stop()
