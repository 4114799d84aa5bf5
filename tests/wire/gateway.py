"""A gateway under test: build/sallyport with a configuration of the test's own on free ports, and an upstream that the
test holds in its hand. Nothing here sleeps to wait: every wait polls a condition with a deadline.
"""
import fcntl
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import socketserver
import subprocess
import tempfile
import threading
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SALLYPORT_BUILD", ROOT / "build"))
BINARY = BUILD / "sallyport"
# For upstreams that fail on purpose, again and again; test_41_breaker.py is about what happens else.
NO_BREAKER = {"circuit_breaker": {"enabled": False}}
DEADLINE = 30.0   # generous: sanitizer builds on a busy machine
POLL = 0.005, 0.025   # seconds between two looks: a twentieth of what has been waited, within these


def until(condition, what, deadline=DEADLINE):
    """The first true value of condition(); fails with `what` when none came in time."""
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began   # a machine that stood still all that time has one more look
        value = condition()
        if value:
            return value
        if waited > deadline:
            raise AssertionError(f"not within {deadline:.0f} s: {what() if callable(what) else what}")
        time.sleep(min(max(waited / 20, POLL[0]), POLL[1]))


def whole_lines(log, about=""):
    """The lines of a log with the text in them. One that is being written is none yet."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return [line for line in text.split("\n")[:-1] if about in line]


def logged(log, about="", count=1):
    """The records of an access log about it, once there are so many."""
    lines = until(lambda: len(found := whole_lines(log, about)) >= count and found, f"{count} lines about {about!r} in {log}")
    return [json.loads(line) for line in lines]


_ports = random.Random(os.getpid() * 7919 + time.time_ns())
_given = set()
# One byte for each port, locked while the test process that was given it lives: several runs may share a machine.
_locks = open(pathlib.Path(tempfile.gettempdir()) / "sallyport-test-ports", "a+b")   # noqa: SIM115


def _is_ours(port):
    try:
        fcntl.lockf(_locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def free_port():
    """Given once. Below the range the kernel takes ports of outgoing connections from, so that none of them is in the
    way later."""
    while True:
        port = _ports.randrange(12000, 32000)
        if port in _given or not _is_ours(port):
            continue
        _given.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def __repr__(self):
        return f"<{self.status} {self.body[:200]!r}>"


def ask(port, path="/", method="GET", body=None, headers=None, timeout=DEADLINE):
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def refused(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Client:
    """A keep-alive connection that knows what it has sent."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self.file = self.socket.makefile("rb")

    def send(self, path="/", close=False):
        connection = "Connection: close\r\n" if close else ""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n{connection}\r\n".encode())

    def receive(self):
        """(status, headers, body) of an answer with a length; None when the connection ended instead."""
        start = self.file.readline()
        if not start:
            return None
        headers = {}
        for line in iter(self.file.readline, b"\r\n"):
            if not line:
                return None
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        size = int(headers.get("content-length", 0))
        body = self.file.read(size)
        return Answer(int(start.split()[1]), headers, body) if len(body) == size else None

    def ask(self, path="/"):
        self.send(path)
        return self.receive()

    def ended(self):
        """The peer has closed, and sent nothing more before."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self):
        self.file.close()
        self.socket.close()


class Origin:
    """An upstream: answers every request with its path; /hold… only once `release` is set."""

    def __init__(self):
        self.release = threading.Event()
        self.held = threading.Semaphore(0)   # one for each request that waits
        origin = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while self.one():
                    pass

            def one(self):
                start = self.rfile.readline()
                if not start:
                    return False
                length = 0
                for line in iter(self.rfile.readline, b"\r\n"):
                    if not line:
                        return False
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                self.rfile.read(length)
                path = start.split()[1]
                if path.startswith(b"/hold"):
                    origin.held.release()
                    origin.release.wait(DEADLINE)
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))
                return True

            def finish(self):
                try:
                    super().finish()
                except OSError:
                    pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 1024

            def handle_error(self, request, client_address):
                pass   # a gateway that is killed resets its connections

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def wait_held(self, count=1):
        for _ in range(count):
            assert self.held.acquire(timeout=DEADLINE), "the request did not reach the upstream"

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


def process_fields(pid):
    """Of /proc/pid/stat, from the state on; none when it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2:].split()


def parent_of(pid):
    fields = process_fields(pid)
    return (int(fields[1]), fields[0]) if fields else (0, "gone")


def started(pid):
    """When, in ticks since the machine was."""
    fields = process_fields(pid)
    return (int(fields[19]) if fields else 0, pid)


class Gateway:
    """build/sallyport run with `config` (a dict, completed with free ports where it names none; or text)."""

    def __init__(self, directory, config=None, binary=BINARY, origin=None):
        self.directory = pathlib.Path(directory)
        self.binary = pathlib.Path(binary)
        self.file = self.directory / "sallyport.yaml"
        self.log_file = self.directory / "stderr.log"
        self.process = None
        self.port, self.admin_port, self.status_port = free_port(), free_port(), free_port()
        self.config = self.complete(config or {}, origin)
        self.write(self.config)

    def complete(self, config, origin):
        config = dict(config)
        config.setdefault("version", 1)
        config.setdefault("workers", 2)
        config.setdefault("listeners", [{"name": "http", "address": f"127.0.0.1:{self.port}"}])
        config.setdefault("admin", {"address": f"127.0.0.1:{self.admin_port}"})
        config.setdefault("status", {"address": f"127.0.0.1:{self.status_port}"})
        config.setdefault("drain", {"delay": "0s", "timeout": "20s"})
        config.setdefault("telemetry", {"access_log": {"output": "off"}})
        # A worker that a busy machine lets wait is late through no fault of its own: who is turned away for it is a test's own.
        config["overload"] = {"loop_lag": {"soft": "20s", "hard": "30s"}, **config.get("overload", {})}
        if origin:
            config.setdefault("upstreams", {"origin": {"targets": [{"address": f"127.0.0.1:{origin.port}"}]}})
            config.setdefault("routes", [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "origin"}])
        else:
            config.setdefault("routes", [{"name": "hello", "match": {"path": {"prefix": "/"}},
                                          "respond": {"status": 200, "body": "hello"}}])
        return config

    def write(self, config):
        """Another configuration file: a dict or text. Replaced in one step, as editors and deployments do."""
        text = config if isinstance(config, str) else yaml.safe_dump(config, sort_keys=False)
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)

    # ---- the process ----

    def start(self, env=None, wait=True, argv_prefix=(), pass_fds=()):
        self.log_offset = self.log_file.stat().st_size if self.log_file.exists() else 0
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [*argv_prefix, str(self.binary), "run", "-c", str(self.file)], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env={**os.environ, **(env or {})}, pass_fds=pass_fds)
        if wait:
            self.wait_ready()
        return self

    def ready(self):
        try:
            return ask(self.status_port, "/readyz", timeout=5).status
        except (OSError, http.client.HTTPException):
            return 0

    def wait_ready(self):
        def is_ready():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
            return self.ready() == 200
        until(is_ready, lambda: f"ready\n{self.log()}")

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, deadline=DEADLINE):
        """The exit status."""
        until(lambda: self.process.poll() is not None, lambda: f"the end of the program\n{self.log()}", deadline)
        return self.process.returncode

    def stop(self):
        """TERM, and everything as it should be afterwards."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            assert self.wait() == 0, self.log()

    def kill(self):
        """Whatever is left, however the test ended."""
        if self.process is None:
            return
        workers = self.workers()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in workers:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def workers(self):
        """The worker processes, oldest first: numbers begin anew when they are used up."""
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
        return sorted((pid for pid in pids if parent_of(pid)[0] == self.process.pid and parent_of(pid)[1] != "Z"
                       and b"\0worker\0" in self.command_line(pid)), key=started)

    @staticmethod
    def command_line(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return b""

    def worker(self):
        """The only worker process, once there is only one."""
        return until(lambda: self.workers() if len(self.workers()) == 1 else None,
                     lambda: f"one worker process, there are {self.workers()}\n{self.log()}")[0]

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_log(self, pattern, count=1):
        """Until the log holds the pattern `count` times."""
        until(lambda: len(re.findall(pattern, self.log())) >= count,
              lambda: f"{count} × {pattern!r} in the log\n{self.log()}")

    def metrics(self):
        """{name{labels}: value}, once every worker has said its part."""
        got = until(lambda: (found := ask(self.status_port, "/metrics")).status == 200 and found, "the workers' metrics")
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
                for line in got.body.decode().splitlines() if line and not line.startswith("#")}

    def shown(self, what):
        """What the admin API says of it, once every worker has said its part."""
        def whole():
            got = json.loads(ask(self.admin_port, f"/api/v1/{what}").body)
            return got.get("complete", all(worker["answers"] for worker in got.get("workers", []))) and got
        return until(whole, lambda: f"the workers' part of {what}\n{self.log()}")

    def workers_info(self):
        return self.shown("info")["workers"]

    def at_rest(self):
        """No worker is busy, nothing is under way, nothing is lent."""
        states = self.workers_info()
        return states and not any(state["exchanges"] or state["lent_connections"] for state in states)

    def wait_rest(self):
        until(self.at_rest, lambda: f"rest: {ask(self.admin_port, '/api/v1/exchanges').body}\n{self.log()}")

    def reload(self, config=None, good=True):
        """HUP, and until it has had its effect."""
        if config is not None:
            self.write(config)
        pattern = r"is in force after" if good else r"is not taken"
        before = len(re.findall(pattern, self.log()))
        self.signal(signal.SIGHUP)
        self.wait_log(pattern, before + 1)

    def reload_everywhere(self, config=None):
        """reload, and until every worker works by it: what they are asked after it they answer after it."""
        self.reload(config)
        self.workers_info()

    def ask(self, path="/", **more):
        return ask(self.port, path, **more)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()
