"""Start, reload, crash, upgrade and end of the program: nothing a client could notice, but what is said here."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

import pytest

import soak
from h2_crowds import settled
from gateway import (BINARY, Client, Gateway, Origin, ask, free_port, refused, until)


@pytest.fixture
def origin():
    server = Origin()
    yield server
    server.close()


def run(*arguments, **more):
    return subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=60, **more)


def hello(text, **more):
    return {"routes": [{"name": "hello", "match": {"path": {"prefix": "/"}},
                        "respond": {"status": 200, "body": text}}], **more}


def changed(gateway, **more):
    return {**gateway.config, **more}


# ---- start ----

def test_start_serves_and_ends(make):
    gateway = make(hello("hi")).start()
    assert gateway.ask().body == b"hi"
    gateway.wait_log(r"worker process \d+ is ready after \d+ ms")
    assert "worker\0" in pathlib.Path(f"/proc/{gateway.worker()}/cmdline").read_text()
    gateway.stop()
    assert refused(gateway.port) and refused(gateway.status_port)


def test_threads_have_names(make):
    gateway = make({"workers": 3}).start()
    tasks = pathlib.Path(f"/proc/{gateway.worker()}/task")
    names = sorted((task / "comm").read_text().strip() for task in tasks.iterdir())
    assert {"worker-0", "worker-1", "worker-2", "sallyport"} <= set(names)
    gateway.stop()


def test_bad_file_prints_every_mistake_and_exits_1(make):
    gateway = make({"nonsense": 1, "workers": "many"})
    gateway.start(wait=False)
    assert gateway.wait() == 1
    lines = gateway.log().splitlines()
    assert len(lines) >= 2
    assert all(line.startswith(f"{gateway.file}:") for line in lines), lines
    assert any("nonsense" in line for line in lines) and any("workers" in line for line in lines)


def test_missing_file_exits_1(tmp_path):
    done = run("run", "-c", tmp_path / "none.yaml")
    assert done.returncode == 1
    assert "none.yaml" in done.stderr and "No such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_address_in_use_exits_1_and_names_the_listener(make):
    gateway = make()
    with socket.create_server(("127.0.0.1", gateway.port)):
        gateway.start(wait=False)
        assert gateway.wait() == 1
    line, = gateway.log().splitlines()
    assert re.match(rf"{re.escape(str(gateway.file))}:\d+:\d+: listeners\[0\].address: .*127.0.0.1:{gateway.port}.*"
                    "in use", line), line


def test_second_gateway_on_the_same_ports_is_refused(make, tmp_path):
    gateway = make().start()
    done = run("run", "-c", gateway.file)
    assert done.returncode == 1 and "already in use" in done.stderr
    assert gateway.ask().status == 200
    gateway.stop()


# ---- the command line ----

def test_unknown_command_suggests(tmp_path):
    done = run("runn")
    assert done.returncode == 2 and 'did you mean "run"?' in done.stderr
    assert run().returncode == 2
    assert run("run").returncode == 2
    assert run("run", "-c", "x", "y").returncode == 2
    assert run("run", "--log-level", "loud", "-c", "x").returncode == 2
    assert run("worker").returncode == 2


def test_version_and_help():
    assert re.fullmatch(r"sallyport \d+\.\d+\.\d+\n", run("version").stdout)
    assert json.loads(run("version", "--json").stdout)["name"] == "sallyport"
    listed = run("help").stdout
    for name in ("run", "check", "dump", "schema", "routes", "explain", "health", "version"):
        assert re.search(rf"^  {name} ", listed, re.M)


def test_routes_prints_in_matching_order(make):
    gateway = make({"upstreams": {name: {"targets": [{"address": "127.0.0.1:9"}]} for name in ("u", "v")}, "routes": [
        {"name": "forward", "match": {"path": {"prefix": "/p"}, "methods": ["GET"]}, "upstream": "u"},
        {"name": "split", "match": {"path": {"template": "/s/{id}"}},
         "split": [{"upstream": "u", "weight": 95}, {"upstream": "v", "weight": 5}]},
        {"name": "wide", "match": {"path": {"prefix": "/"}}, "respond": {"status": 200}},
        {"name": "exact", "match": {"path": {"exact": "/a"}}, "respond": {"status": 200}},
        {"name": "host", "match": {"hosts": ["a.example"], "path": {"prefix": "/"}}, "redirect": {"to": "/b"}}]})
    text = run("routes", "-c", gateway.file)
    assert text.returncode == 0, text.stderr
    order = ["host", "exact", "split", "forward", "wide"]
    assert [line.split()[1] for line in text.stdout.splitlines()] == order
    assert [line.split("->")[1].strip() for line in text.stdout.splitlines()] == [
        "redirect /b", "respond 200", "u 95/100, v 5/100", "u", "respond 200"]
    listed = json.loads(run("routes", "-c", gateway.file, "--json").stdout)
    assert [route["name"] for route in listed] == order
    assert listed[2]["split"][0] == {"upstream": "u", "weight": 95} and listed[3]["upstream"] == "u"
    assert run("routes", "-c", gateway.file, "extra").returncode == 2
    assert listed[1]["match"]["path"] == {"exact": "/a"} and listed[0]["redirect"]["to"] == "/b"


def test_health_asks_the_status_listener(make):
    gateway = make()
    address = f"127.0.0.1:{gateway.status_port}"
    assert run("health", "--status", address).returncode == 1
    gateway.start()
    assert run("health", "--status", address).returncode == 0
    assert run("health", "-c", gateway.file).returncode == 0
    assert run("health", "--status", "nonsense").returncode == 2
    gateway.stop()
    assert run("health", "-c", gateway.file).returncode == 1


def test_health_gives_up_on_a_silent_peer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = run("health", "--status", address, "--timeout", "100ms")
        assert done.returncode == 1 and "in time" in done.stderr


def test_explain_by_file_and_by_admin(make):
    gateway = make().start()
    for where in (("-c", gateway.file), ("--admin", f"127.0.0.1:{gateway.admin_port}")):
        done = run("explain", *where, "GET http://any.example/x", "-H", "Accept: a/*", "-H", "X: 1",
                   "-H", "Accept: b/*")
        assert done.returncode == 0, done.stderr
        assert "hello" in json.dumps(json.loads(done.stdout))
    assert run("explain", "GET http://any.example/x").returncode == 2
    assert run("explain", "-c", gateway.file, "GET http://any.example/x", "-H", "nocolon").returncode == 2
    gateway.stop()


# ---- reload ----

def test_reload_takes_a_good_file_and_keeps_connections(make):
    gateway = make(hello("one")).start()
    client = Client(gateway.port)
    assert client.ask().body == b"one"
    gateway.reload(changed(gateway, **hello("two")))
    until(lambda: gateway.ask().body == b"two", "the new answer")
    assert client.ask().body == b"two"
    assert gateway.metrics()['sallyport_config_reloads_total{result="success"}'] == 1
    client.close()
    gateway.stop()


def test_reload_refuses_a_bad_file(make):
    gateway = make(hello("one")).start()
    gateway.reload(changed(gateway, nonsense=1, bogus=2), good=False)
    assert "nonsense" in gateway.log() and "bogus" in gateway.log()
    assert gateway.ask().body == b"one"
    metrics = gateway.metrics()
    assert metrics['sallyport_config_reloads_total{result="failure"}'] == 1
    assert metrics["sallyport_config_last_reload_success"] == 0
    gateway.reload(changed(gateway, **hello("two")))
    assert gateway.metrics()["sallyport_config_last_reload_success"] == 1
    gateway.stop()


def test_reload_refuses_an_address_in_use_as_a_whole(make):
    gateway = make(hello("one")).start()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listeners = [*gateway.config["listeners"],
                     {"name": "more", "address": f"127.0.0.1:{taken.getsockname()[1]}"}]
        gateway.reload(changed(gateway, listeners=listeners, **hello("two")), good=False)
        assert re.search(r"listeners\[1\]\.address: .*in use", gateway.log())
        assert gateway.ask().body == b"one"
    gateway.stop()


def test_reload_opens_moves_and_closes_listeners(make):
    gateway = make().start()
    more, moved = free_port(), free_port()

    def listeners(**ports):
        return [{"name": name, "address": f"127.0.0.1:{port}"} for name, port in ports.items()]

    gateway.reload(changed(gateway, listeners=listeners(http=gateway.port, more=more)))
    until(lambda: not refused(more), "the new listener")
    assert ask(more).status == 200
    held = Client(more)
    assert held.ask().status == 200
    gateway.reload(changed(gateway, listeners=listeners(http=gateway.port, more=moved)))
    until(lambda: refused(more), "the old address closed")
    assert ask(moved).status == 200
    assert held.ask().status == 200   # what was accepted there lives on
    gateway.reload(changed(gateway, listeners=listeners(http=gateway.port, more=more)))
    until(lambda: refused(moved), "the second address closed")
    assert ask(more).status == 200
    gateway.reload(changed(gateway, listeners=listeners(renamed=gateway.port)))
    until(lambda: refused(more), "the listener closed")
    assert gateway.ask().status == 200
    held.close()
    gateway.stop()


def test_reload_moves_status_and_admin(make):
    gateway = make().start()
    old_status, old_admin = gateway.status_port, gateway.admin_port
    gateway.status_port, gateway.admin_port = free_port(), free_port()
    gateway.reload(changed(gateway, status={"address": f"127.0.0.1:{gateway.status_port}"},
                           admin={"address": f"127.0.0.1:{gateway.admin_port}"}))
    assert gateway.ready() == 200
    until(lambda: refused(old_status) and refused(old_admin), "the old addresses closed")
    assert ask(gateway.admin_port, "/api/v1/info").status == 200
    gateway.stop()


def test_reload_through_the_admin_api(make):
    gateway = make(hello("one")).start()
    gateway.write(changed(gateway, **hello("two")))
    assert ask(gateway.admin_port, "/api/v1/reload", method="POST").status == 200
    until(lambda: gateway.ask().body == b"two", "the new answer")
    gateway.write(changed(gateway, nonsense=1))
    answer = ask(gateway.admin_port, "/api/v1/reload", method="POST")
    assert answer.status >= 400 and b"nonsense" in answer.body
    gateway.stop()


def test_reload_says_that_workers_need_a_restart(make):
    gateway = make({"workers": 1}).start()
    gateway.reload(changed(gateway, workers=2))
    assert re.search(r"warn worker: workers: .*SIGUSR2", gateway.log())
    gateway.stop()


def test_many_reloads_leave_no_descriptor_behind(make):
    gateway = make(hello("0")).start()

    def descriptors():
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (gateway.process.pid, gateway.worker()))

    gateway.ask()
    before = settled(descriptors)
    for i in range(20):
        extra = [{"name": "extra", "address": f"127.0.0.1:{free_port()}"}] if i % 2 else []
        gateway.reload(changed(gateway, listeners=gateway.config["listeners"] + extra, **hello(str(i))))
    gateway.reload(changed(gateway))
    until(lambda: descriptors() <= before, lambda: f"{before} descriptors again, there are {descriptors()}")
    gateway.stop()


# ---- logs ----

def log_config(path):
    return {"access_log": {"output": str(path)}}


def test_logs_are_reopened(make, tmp_path):
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    gateway = make(hello("x", telemetry=log_config(path))).start()
    gateway.ask("/before")
    until(lambda: path.exists() and "/before" in path.read_text(), "the first line")
    path.rename(moved)
    gateway.signal(signal.SIGUSR1)
    until(path.exists, "the new file")
    gateway.ask("/after")
    until(lambda: "/after" in path.read_text(), "the second line")
    assert "/before" not in path.read_text()
    gateway.stop()


def test_reload_moves_the_access_log(make, tmp_path):
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    gateway = make(hello("x", telemetry=log_config(first))).start()
    gateway.ask("/one")
    gateway.reload_everywhere(changed(gateway, telemetry=log_config(second)))
    gateway.ask("/two")
    until(lambda: second.exists() and "/two" in second.read_text(), "the line in the second file")
    until(lambda: "/one" in first.read_text(), "the line in the first file")
    gateway.reload(changed(gateway, telemetry=log_config(tmp_path / "no/such/dir.log")), good=False)
    gateway.reload_everywhere(changed(gateway, telemetry={"access_log": {"output": "off"}}))
    assert gateway.ask("/three").status == 200
    gateway.stop()
    assert "/three" not in second.read_text()


# ---- a crash ----

def test_killed_worker_process_is_replaced_and_its_queue_survives(make):
    gateway = make({"workers": 2}).start()
    victim = gateway.worker()
    os.kill(victim, signal.SIGSTOP)
    until(lambda: all(stat.read_text().rsplit(")", 1)[1].split()[0] == "T"
                      for stat in pathlib.Path(f"/proc/{victim}/task").glob("*/stat")), "every thread stopped")
    clients = [Client(gateway.port) for _ in range(50)]   # accepted by nobody: they wait in the sockets' queues
    for client in clients:
        client.send()
    os.kill(victim, signal.SIGKILL)
    assert all(client.receive().status == 200 for client in clients)
    assert gateway.worker() != victim
    assert "was killed by SIGKILL" in gateway.log()
    gateway.wait_ready()
    assert gateway.metrics()["sallyport_worker_restarts_total"] == 1
    for client in clients:
        client.close()
    gateway.stop()


def test_replacement_runs_what_was_running(make):
    gateway = make(hello("one")).start()
    gateway.reload(changed(gateway, **hello("two")))
    for text in ("nonsense: [", "version: 1\n"):
        gateway.write(text)
        victim = gateway.worker()
        os.kill(victim, signal.SIGKILL)
        until(lambda: gateway.workers() not in ([], [victim]), "another worker process")
        assert gateway.ask().body == b"two"
        gateway.wait_ready()
    gateway.stop()


def test_repeated_crashes_are_survived(make):
    gateway = make().start()
    for _ in range(6):
        victim = gateway.worker()
        os.kill(victim, signal.SIGABRT)
        until(lambda: gateway.workers() and gateway.workers() != [victim], "another worker process")
        assert gateway.ask().status == 200
    gateway.wait_log("died young")
    gateway.stop()


def test_supervisor_killed_worker_process_finishes_and_ends(make, origin):
    gateway = make(origin=origin).start()
    worker = gateway.worker()
    client = Client(gateway.port)
    client.send("/hold")
    origin.wait_held()
    gateway.process.kill()
    gateway.process.wait()
    until(lambda: refused(gateway.port) and refused(gateway.status_port), "the listeners closed")
    origin.release.set()
    assert client.receive().body == b"/hold"
    until(lambda: not pathlib.Path(f"/proc/{worker}").exists(), "the worker process's end")
    client.close()


# ---- a new binary ----

def upgrade(gateway, ok=True):
    before = gateway.workers()
    gateway.signal(signal.SIGUSR2)
    if ok:
        gateway.wait_log(f"has taken over from {before[-1]}")
    return before[-1]


def test_upgrade_keeps_process_id_connections_and_requests(make, origin):
    gateway = make(origin=origin).start()
    pid = gateway.process.pid
    slow, idle, busy = Client(gateway.port), Client(gateway.port), Client(gateway.port)
    assert idle.ask("/idle").status == 200
    slow.send("/hold")
    origin.wait_held()
    old = upgrade(gateway)
    assert gateway.process.pid == pid and gateway.process.poll() is None
    assert ask(gateway.port, "/new").status == 200
    answer = busy.ask("/busy")   # accepted by the old one: it answers, and says that it is the last
    assert answer.status == 200
    origin.release.set()
    answer = slow.receive()
    assert answer.body == b"/hold" and answer.headers.get("connection") == "close"
    for client in (slow, idle, busy):
        client.close()
    until(lambda: old not in gateway.workers(), "the old worker process's end")
    gateway.stop()
    assert "killed" not in gateway.log()


def test_upgrade_takes_the_file_and_counts_on(make):
    gateway = make(hello("one")).start()
    os.kill(gateway.worker(), signal.SIGKILL)
    gateway.wait_log("is ready after", 2)
    gateway.write(changed(gateway, **hello("two")))
    upgrade(gateway)
    until(lambda: gateway.ask().body == b"two", "the new answer")
    gateway.worker()
    assert gateway.metrics()["sallyport_worker_restarts_total"] == 1
    gateway.reload(changed(gateway, **hello("three")))   # signals arrive at the new image
    until(lambda: gateway.ask().body == b"three", "the third answer")
    gateway.stop()


def test_upgrade_refused_for_a_bad_file(make):
    gateway = make(hello("one")).start()
    worker = gateway.worker()
    gateway.write(changed(gateway, nonsense=1))
    upgrade(gateway, ok=False)
    gateway.wait_log("upgrade: the new binary does not accept")
    assert "nonsense" in gateway.log()
    assert gateway.ask().body == b"one" and gateway.worker() == worker
    gateway.stop()


def own_binary(tmp_path):
    """A copy that the test may replace."""
    directory = tmp_path / "bin"
    directory.mkdir()
    copy = directory / "sallyport"
    copy.write_bytes(BINARY.read_bytes())
    copy.chmod(0o755)
    return copy


def replace(binary, content):
    new = binary.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o755)
    new.rename(binary)


@pytest.mark.parametrize("content", [b"#!/bin/sh\nexit 3\n", b"not a program", b"#!/no/such/interpreter\n"])
def test_upgrade_refused_for_a_broken_binary(make, tmp_path, content):
    binary = own_binary(tmp_path)
    gateway = make(hello("one"), binary=binary).start()
    worker = gateway.worker()
    replace(binary, content)
    upgrade(gateway, ok=False)
    gateway.wait_log("nothing has changed")
    assert gateway.ask().body == b"one" and gateway.worker() == worker
    os.kill(worker, signal.SIGKILL)   # the running image still restarts itself, though its file is gone
    gateway.wait_log("is ready after", 2)
    assert gateway.ask().body == b"one"
    replace(binary, BINARY.read_bytes())
    gateway.worker()
    upgrade(gateway)
    gateway.stop()


def test_upgrade_whose_worker_process_cannot_start_changes_nothing(make):
    gateway = make(hello("one")).start()
    worker = gateway.worker()
    with socket.create_server(("127.0.0.1", 0)) as taken:   # `check` does not try addresses
        more = {"name": "more", "address": f"127.0.0.1:{taken.getsockname()[1]}"}
        gateway.write(changed(gateway, listeners=[*gateway.config["listeners"], more], **hello("two")))
        upgrade(gateway, ok=False)
        gateway.wait_log(f"did not become ready; worker process {worker} keeps serving")
    assert gateway.ask().body == b"one" and gateway.worker() == worker
    os.kill(worker, signal.SIGKILL)   # and its configuration is still the one for a restart
    gateway.wait_log("is ready after", 2)
    assert gateway.ask().body == b"one"
    upgrade(gateway)
    until(lambda: gateway.ask().body == b"two", "the new answer, now that the address is free")
    gateway.stop()


def test_upgrade_serves_every_socket_with_more_and_with_fewer_workers(make):
    gateway = make({"workers": 3}).start()
    for workers in (1, 4, 2):
        gateway.write(changed(gateway, workers=workers))
        upgrade(gateway)
        gateway.worker()   # the old one is gone: nobody else answers
        clients = [Client(gateway.port) for _ in range(64)]   # spread over all sockets by the kernel
        assert all(client.ask().status == 200 for client in clients)
        for client in clients:
            client.close()
        names = [(task / "comm").read_text() for task in pathlib.Path(f"/proc/{gateway.worker()}/task").iterdir()]
        assert sum(name.startswith("worker-") for name in names) == workers
    gateway.stop()


def test_upgrades_in_a_row_with_a_request_that_outlives_them(make, origin):
    gateway = make(origin=origin).start()
    slow = Client(gateway.port)
    slow.send("/hold")
    origin.wait_held()
    first = gateway.workers()[0]
    for _ in range(3):
        upgrade(gateway)
        assert first in gateway.workers()
    origin.release.set()
    assert slow.receive().body == b"/hold"
    slow.close()
    gateway.worker()
    gateway.stop()


# ---- the end ----

def test_drain_is_not_ready_accepts_for_delay_and_finishes_requests(make, origin):
    gateway = make({"drain": {"delay": "5s", "timeout": "20s"}}, origin=origin).start()
    slow = Client(gateway.port)
    slow.send("/hold")
    origin.wait_held()
    gateway.signal(signal.SIGTERM)
    until(lambda: gateway.ready() == 503, "not ready")
    assert ask(gateway.port, "/late").status == 200   # still within the delay
    until(lambda: refused(gateway.port), "refused after the delay")
    assert gateway.process.poll() is None
    origin.release.set()
    answer = slow.receive()
    assert answer.body == b"/hold" and answer.headers.get("connection") == "close"
    slow.close()
    assert gateway.wait() == 0


def test_second_signal_stops_now(make, origin):
    gateway = make({"drain": {"delay": "20s", "timeout": "60s"}}, origin=origin).start()
    slow = Client(gateway.port)
    slow.send("/hold")
    origin.wait_held()
    gateway.signal(signal.SIGINT)
    until(lambda: gateway.ready() == 503, "not ready")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait(15) == 0
    assert slow.ended()
    slow.close()


def test_drain_timeout_cuts_what_is_left(make, origin):
    gateway = make({"drain": {"delay": "0s", "timeout": "300ms"}}, origin=origin).start()
    slow = Client(gateway.port)
    slow.send("/hold")
    origin.wait_held()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait(15) == 0
    assert "drain.timeout is over" in gateway.log()
    assert slow.ended()
    slow.close()


def test_drain_through_the_admin_api(make):
    gateway = make().start()
    assert ask(gateway.admin_port, "/api/v1/drain", method="POST").status < 300
    assert gateway.wait() == 0


def test_crash_while_draining_is_not_restarted(make, origin):
    gateway = make(origin=origin).start()
    slow = Client(gateway.port)
    slow.send("/hold")
    origin.wait_held()
    gateway.signal(signal.SIGTERM)
    until(lambda: gateway.ready() != 200, "not ready")
    os.kill(gateway.worker(), signal.SIGKILL)
    assert gateway.wait() == 1
    assert "died while draining" in gateway.log()
    slow.close()


def test_terminal_interrupt_reaches_the_whole_group(make, origin):
    """Ctrl-C is sent to every process of the group; the worker process leaves it to the supervisor."""
    gateway = make(origin=origin).start()
    slow = Client(gateway.port)
    slow.send("/hold")
    origin.wait_held()
    for pid in (gateway.worker(), gateway.process.pid):
        os.kill(pid, signal.SIGINT)
    until(lambda: refused(gateway.port), "draining")
    origin.release.set()
    assert slow.receive().body == b"/hold"
    slow.close()
    assert gateway.wait() == 0


# ---- the service manager ----

class NotifySocket:
    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(30)

    def next(self):
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def wait(self, key):
        while True:
            message = self.next()
            if key in message:
                return message

    def close(self):
        self.socket.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_service_manager_is_notified(make, tmp_path, abstract):
    name = f"@sallyport-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    notify = NotifySocket("\0" + name[1:] if abstract else name)
    gateway = make().start(env={"NOTIFY_SOCKET": name})
    assert notify.wait("READY")["READY"] == "1"
    before = time.monotonic_ns() // 1000
    gateway.signal(signal.SIGHUP)
    message = notify.wait("RELOADING")
    assert before <= int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert notify.wait("READY")["READY"] == "1"
    upgrade(gateway)
    assert notify.wait("READY")["READY"] == "1"
    gateway.signal(signal.SIGTERM)
    assert notify.wait("STOPPING")["STOPPING"] == "1"
    assert gateway.wait() == 0
    notify.close()


def activated(gateway, *sockets):
    """Started as a service manager does: the sockets from descriptor 3 on."""
    shift = " ".join(f"{3 + i}<&{s.fileno()}" for i, s in enumerate(sockets))
    script = f'exec {shift}; LISTEN_FDS={len(sockets)} LISTEN_PID=$$ exec "$@"'
    return gateway.start(argv_prefix=("bash", "-c", script, "sh"), pass_fds=[s.fileno() for s in sockets])


def moved_up(listening):
    """The same socket on a descriptor that does not get in the way of 3 and 4."""
    import fcntl
    fd = fcntl.fcntl(listening.fileno(), fcntl.F_DUPFD, 50)
    listening.close()
    return socket.socket(fileno=fd)


def test_socket_activation(make):
    listening = moved_up(socket.create_server(("127.0.0.1", 0)))
    stray = moved_up(socket.create_server(("127.0.0.1", 0)))
    port = listening.getsockname()[1]
    gateway = make({"workers": 2, "listeners": [{"name": "http", "address": f"127.0.0.1:{port}"}]})
    early = Client(port)   # before anybody is there to accept it
    early.send()
    activated(gateway, listening, stray)
    assert early.receive().status == 200
    early.close()
    clients = [Client(port) for _ in range(20)]
    assert all(client.ask().status == 200 for client in clients)
    gateway.wait_log(f"{stray.getsockname()[1]} was given by socket activation")
    upgrade(gateway)
    assert ask(port).status == 200
    os.kill(gateway.workers()[-1], signal.SIGKILL)
    assert ask(port).status == 200
    for client in clients:
        client.close()
    gateway.stop()
    assert not refused(port)   # the manager keeps it
    listening.close()
    stray.close()


def test_socket_activation_of_all_addresses(make):
    listening = moved_up(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    port = listening.getsockname()[1]
    gateway = make({"listeners": [{"name": "http", "address": f"0.0.0.0:{port}"}]})
    activated(gateway, listening)
    assert ask(port).status == 200
    gateway.stop()
    listening.close()


# ---- unix sockets ----

def test_unix_listener_survives_crash_and_upgrade(make, tmp_path):
    path = tmp_path / "listen.sock"
    gateway = make({"workers": 3, "listeners": [{"name": "local", "address": f"unix:{path}"}]}).start()

    def status():
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            return int(client.makefile("rb").readline().split()[1])

    assert [status() for _ in range(8)] == [200] * 8
    assert run("run", "-c", gateway.file).returncode == 1   # a second one does not take the path away
    os.kill(gateway.worker(), signal.SIGKILL)
    assert status() == 200
    gateway.wait_log("is ready after", 2)
    upgrade(gateway)
    assert status() == 200
    gateway.stop()
    assert not path.exists()


# ---- all of it under load ----

def test_soak_in_small(tmp_path):
    """tests/wire/soak.py with fewer of everything: no request is lost but those in flight in a killed process."""
    figures = soak.soak(tmp_path, requests=4000, reloads=16, kills=3, upgrades=2, seed=7)
    assert not figures["lost"], json.dumps(figures["lost"][:5], indent=1) + figures["log"]
    assert figures["answered"] >= 3900
    assert figures["in_flight_when_killed"] <= 3 * soak.PROCESSES * soak.CONNECTIONS * 2
