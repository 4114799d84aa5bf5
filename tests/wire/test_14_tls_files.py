"""The files that TLS is made of, beside the handshakes (test_16_tls_files.py): what `check` says of all of them in one run,
what expires, what happens when they change on disk or are bad while a worker process comes back."""
import datetime
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess

import yaml

from certificates import DAY
from clocks import Clock
from gateway import BINARY, ask, until

EXPIRY = "sallyport_tls_certificate_expiry_timestamp_seconds"


def check(file, *options):
    return subprocess.run([str(BINARY), "check", *options, "-c", str(file)], capture_output=True, text=True, timeout=60)


def write(directory, config):
    file = directory / "checked.yaml"
    file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return file


def https(port, *certificates, name="https", **tls):
    return {"name": name, "address": f"127.0.0.1:{port}", "tls": {"certificates": list(certificates), **tls}}


def put(certificate, directory):
    """Its files under names that stay; each replaced in one step."""
    for source, name in ((certificate.cert, "live.pem"), (certificate.key, "live.key")):
        shutil.copy(source, directory / "new")
        (directory / "new").rename(directory / name)
    return {"cert": str(directory / "live.pem"), "key": str(directory / "live.key")}


def shown(gateway, name="a.example"):
    """The certificate that a client is shown, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as plain:
        with context.wrap_socket(plain, server_hostname=name) as client:
            return client.getpeercert(binary_form=True)


def until_shown(gateway, certificate):
    """By every worker: each carries the order out between two turns of its loop."""
    until(lambda: all(shown(gateway) == certificate.der for _ in range(8)), lambda: f"the new one\n{gateway.log()}")


def ends(certificate):
    return certificate.x509.not_valid_after.replace(tzinfo=datetime.timezone.utc).timestamp()


def expiry(gateway, name="a.example"):
    return gateway.metrics().get(f'{EXPIRY}{{name="{name}"}}')


def info(gateway):
    return json.loads(ask(gateway.admin_port, "/api/v1/info").body)


def serving(make, *certificates, env=None, **tls):
    gateway = make()
    gateway.config["listeners"] = [https(gateway.port, *certificates, **tls)]
    gateway.write(gateway.config)
    return gateway.start(env)


# ---- check ----

def test_every_bad_file_is_told_in_one_run(pki, tmp_path):
    good, garbage = pki.ca.issue("a.example"), tmp_path / "garbage.pem"
    garbage.write_text("no certificate\n")
    absent = tmp_path / ("long/" * 30) / "absent.pem"   # longer than the place that a failure has for names
    other = pki.ca.issue("b.example")
    file = write(tmp_path, f"""version: 1
listeners:
  - name: a
    address: ":1"
    tls:
      certificates:
        - {{cert: {good.cert}, key: {good.key}}}
        - {{cert: {absent}, key: {good.key}}}
        - {{cert: {good.cert}, key: {absent}}}
        - {{cert: {good.cert}, key: {good.key}, ocsp: {garbage}}}
      client_ca: {garbage}
      client_auth: require
  - {{name: b, address: ":2", tls: {{certificates: [{{cert: {garbage}, key: {garbage}}}]}}}}
upstreams:
  orders:
    targets: [{{address: "127.0.0.1:1"}}]
    tls: {{ca: {absent}, cert: {good.cert}, key: {other.key}}}
  unverified: {{targets: [{{address: "127.0.0.1:1"}}], tls: {{ca: {absent}, verify: false}}}}
""")
    done = check(file)
    assert (done.returncode, done.stdout) == (1, "")
    wanted = [
        (8, 11, "listeners[0].tls.certificates[1].cert", absent),
        (9, 11, "listeners[0].tls.certificates[2].key", absent),
        (10, 11, "listeners[0].tls.certificates[3].ocsp", garbage),
        (6, 7, "listeners[0].tls.client_ca", garbage),
        (13, 51, "listeners[1].tls.certificates[0].cert", garbage),
        (17, 10, "upstreams.orders.tls.ca", absent),
        (17, 10, "upstreams.orders.tls.key", other.key),
    ]
    lines = done.stderr.splitlines()
    assert len(lines) == len(wanted), done.stderr
    for line, column, path, named in wanted:
        start = f"{file}:{line}:{column}: {path}: {named}: "
        assert [text for text in lines if text.startswith(start) and len(text) > len(start) + 5], (start, done.stderr)
    report = json.loads(check(file, "--json").stdout)
    assert report["valid"] is False and {error["path"] for error in report["errors"]} == {path for _, _, path, _ in wanted}


def test_paths_begin_at_the_working_directory(pki, tmp_path):
    put(pki.ca.issue("a.example"), tmp_path)
    (tmp_path / "conf").mkdir()
    file = write(tmp_path / "conf", {"version": 1, "listeners": [https(1, {"cert": "live.pem", "key": "live.key"})]})
    for directory, status in ((tmp_path, 0), (tmp_path / "conf", 1)):
        done = subprocess.run([str(BINARY.resolve()), "check", "-c", str(file)], cwd=directory, capture_output=True, text=True,
                              timeout=60)
        assert done.returncode == status, done


def test_what_expires_soon_is_a_warning(pki, tmp_path):
    soon, later = pki.ca.issue("soon.example", ends=3.5 * DAY), pki.ca.issue("later.example", ends=15 * DAY)
    mine = pki.clients.issue("me", client=True, ends=datetime.timedelta(hours=5, minutes=30))
    late = pki.ca.ocsp(later, begins=-7 * DAY, ends=-DAY)
    config = {"version": 1, "listeners": [https(1, later.files, {**later.files, "ocsp": late}, soon.files)],
              "upstreams": {"orders": {"targets": [{"address": "127.0.0.1:1"}],
                                       "tls": {"verify": False, "cert": str(mine.cert), "key": str(mine.key)}}}}
    file = write(tmp_path, config)
    done = check(file)
    assert done.returncode == 0 and "valid (1 listener" in done.stdout
    lines = {re.sub(r"^.*?:\d+:\d+: ", "", line) for line in done.stderr.splitlines()}
    date = f"{soon.x509.not_valid_after:%Y-%m-%d %H:%M} UTC"
    assert f"listeners[0].tls.certificates[2].cert: {soon.cert} (soon.example) expires in 3 days, on {date} (renew it)" in lines
    assert any(line.startswith("upstreams.orders.tls.cert: ") and "expires in 5 hours" in line for line in lines)
    assert any(line.startswith("listeners[0].tls.certificates[1].ocsp: ") and "not stapled" in line for line in lines)
    assert len(lines) == 3, done.stderr
    report = json.loads(check(file, "--json").stdout)
    assert report["valid"] is True and report["errors"] == [] and len(report["warnings"]) == 3
    file = write(tmp_path, {"version": 1, "listeners": [https(1, later.files)]})
    assert check(file).stderr == "" and json.loads(check(file, "--json").stdout) == {"valid": True, "errors": []}


def test_dump_and_explain_need_no_files(tmp_path):
    nowhere = {"cert": str(tmp_path / "a"), "key": str(tmp_path / "b")}
    file = write(tmp_path, {"version": 1, "listeners": [https(1, nowhere)]})
    assert check(file).returncode == 1
    for arguments in (["dump", "-c", str(file)], ["routes", "-c", str(file)],
                      ["explain", "-c", str(file), "GET https://a.example/"]):
        done = subprocess.run([str(BINARY), *arguments], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), done


# ---- what is told of those in force ----

def test_metric_and_info_tell_the_certificates_in_force(make, pki):
    rsa, ecdsa = pki.ca.issue("a.example", kind="rsa", ends=50 * DAY), pki.ca.issue("a.example", ends=60 * DAY)
    soon = pki.ca.issue("soon.example", ends=3.5 * DAY)
    gateway = serving(make, ecdsa.files, rsa.files, soon.files)
    assert expiry(gateway) == ends(rsa) and expiry(gateway, "soon.example") == ends(soon)
    gateway.wait_log(r"warn config: .*soon\.example\) expires in 3 days")
    told = info(gateway)["certificates"]
    assert [(one["name"], one["algorithm"], one["listener"], one["cert"]) for one in told] == [
        ("a.example", "ecdsa", "https", str(ecdsa.cert)), ("a.example", "rsa", "https", str(rsa.cert)),
        ("soon.example", "ecdsa", "https", str(soon.cert))]
    assert told[0]["not_after"] == f"{ecdsa.x509.not_valid_after:%Y-%m-%dT%H:%M:%SZ}"
    settings = json.loads(ask(gateway.admin_port, "/api/v1/config").body)["listeners"][0]["tls"]
    assert settings["certificates"][1] == {**rsa.files, "ocsp": None} and settings["min_version"] == "1.2"
    gateway.config["listeners"] = [https(gateway.port, ecdsa.files)]
    gateway.reload(gateway.config)
    assert expiry(gateway) == ends(ecdsa) and expiry(gateway, "soon.example") is None
    gateway.stop()


# ---- files that change ----

def test_a_change_on_disk_compiles_what_is_in_force_not_the_file(make, pki, tmp_path):
    """An edit that nobody has reloaded waits on."""
    first, second = pki.ca.issue("a.example"), pki.ca.issue("a.example", ends=60 * DAY)
    gateway = serving(make, put(first, tmp_path))
    before = info(gateway)
    assert shown(gateway) == first.der and expiry(gateway) == ends(first)
    gateway.write("nonsense: true\n")
    put(second, tmp_path)
    until_shown(gateway, second)
    assert expiry(gateway) == ends(second)
    after = info(gateway)
    assert after["generation"] > before["generation"] and after["reloads"] == before["reloads"]
    assert "unknown key" not in gateway.log()
    gateway.stop()


def test_a_bad_change_on_disk_is_told_once(make, pki, tmp_path):
    first, second = pki.ca.issue("a.example"), pki.ca.issue("a.example", ends=60 * DAY)
    files = put(first, tmp_path)
    gateway = serving(make, files)
    (tmp_path / "live.pem").write_text("half")
    gateway.wait_log("changed files are not taken")
    assert re.search(rf"error config: .*listeners\[0\]\.tls\.certificates\[0\]\.cert: {re.escape(files['cert'])}: ",
                     gateway.log())
    assert shown(gateway) == first.der and gateway.ready() == 200
    (tmp_path / "live.pem").unlink()
    gateway.wait_log("changed files are not taken", 2)
    assert shown(gateway) == first.der
    put(second, tmp_path)
    until_shown(gateway, second)
    gateway.wait_log("changed files are in force after")
    assert len(re.findall("changed files are not taken", gateway.log())) == 2
    gateway.stop()


def test_files_of_upstreams_are_looked_at(make, pki, tmp_path):
    first, second = pki.clients.issue("me", client=True), pki.clients.issue("me", client=True, ends=60 * DAY)
    ca = tmp_path / "ca.pem"
    shutil.copy(pki.ca.file, ca)
    gateway = make()
    gateway.config["upstreams"] = {"orders": {"targets": [{"address": "127.0.0.1:1"}],
                                              "tls": {"ca": str(ca), **put(first, tmp_path)}}}
    gateway.write(gateway.config)
    gateway.start()
    assert expiry(gateway, "me") == ends(first)
    put(second, tmp_path)
    until(lambda: expiry(gateway, "me") == ends(second), "our own new certificate")
    shutil.copy(pki.other.file, ca)
    gateway.wait_log(rf"{re.escape(str(ca))} has changed")
    gateway.stop()


def test_nothing_is_looked_at_while_draining(make, pki, tmp_path):
    """And the end is not kept waiting."""
    gateway = serving(make, put(pki.ca.issue("a.example"), tmp_path))
    (tmp_path / "live.pem").write_text("half")
    gateway.stop()
    assert "not taken" not in gateway.log()


# ---- a worker process comes back ----

def crash(gateway):
    victim = gateway.worker()
    os.kill(victim, signal.SIGKILL)
    until(lambda: gateway.workers() not in ([], [victim]), "another worker process")
    gateway.wait_ready()


def test_what_was_accepted_comes_back_though_the_files_are_bad_or_gone(make, pki, tmp_path):
    first, second = pki.ca.issue("a.example"), pki.ca.issue("a.example", ends=60 * DAY)
    gateway = serving(make, put(first, tmp_path))
    (tmp_path / "live.pem").write_text("half")
    gateway.wait_log("changed files are not taken")
    crash(gateway)
    assert shown(gateway) == first.der and expiry(gateway) == ends(first)
    gateway.wait_log("changed files are not taken", 2)   # told by the new one as well
    (tmp_path / "live.pem").unlink()
    (tmp_path / "live.key").unlink()
    crash(gateway)
    assert shown(gateway) == first.der
    put(second, tmp_path)
    until_shown(gateway, second)
    crash(gateway)   # what came into force without a reload is kept, too
    assert shown(gateway) == second.der and expiry(gateway) == ends(second)
    gateway.stop()


def test_keys_are_in_no_environment_and_on_no_disk(make, pki, tmp_path):
    own = pki.ca.issue("a.example")
    gateway = serving(make, own.files)
    crash(gateway)
    for pid in (gateway.process.pid, gateway.worker()):
        for name in ("environ", "cmdline"):
            with open(f"/proc/{pid}/{name}", "rb") as file:
                assert b"PRIVATE KEY" not in file.read()
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert not any(link.startswith("/") and not link.startswith(("/dev/", "/memfd:", "/proc/", str(tmp_path))) for link in links), links
    gateway.stop()


def test_what_was_accepted_comes_back_though_it_has_expired(make, pki, tmp_path):
    brief, clock = pki.ca.issue("a.example", ends=datetime.timedelta(hours=1)), Clock(tmp_path / "clock", [0, 2 * 3600])
    gateway = serving(make, put(brief, tmp_path), env=clock.environment)
    clock.jump()
    crash(gateway)
    assert shown(gateway) == brief.der
    gateway.wait_log(r"warn config: .*\(a\.example\) has expired, on")
    gateway.reload(good=False)
    assert shown(gateway) == brief.der
    gateway.stop()
