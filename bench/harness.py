"""Programs started, watched and stopped; CPU time, memory and load measured. Knows nothing of proxies or modes."""

import ctypes
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

PROXY_CORE = 0  # the program under test has this core to itself
LOAD_CORE = 1   # load, origin, log server and this script share the other
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """What went wrong, in words for the person who ran the bench."""


# --- processes -------------------------------------------------------------------------------------------------------


def stat_fields(pid):
    """The fields of /proc/PID/stat after the name: [0] state, [1] parent, [19] start time; None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2:].split()


def process_tree(root):
    """{pid: start time} of the process and all its descendants: a pid alone might be somebody else's by tomorrow."""
    parents = {}
    started = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = stat_fields(int(entry))
            if fields and fields[0] != "Z":
                parents[int(entry)] = int(fields[1])
                started[int(entry)] = fields[19]
    tree = {root: started[root]} if root in started else {}
    grown = True
    while grown:
        grown = False
        for pid, parent in parents.items():
            if parent in tree and pid not in tree:
                tree[pid] = started[pid]
                grown = True
    return tree


def task_times(pids):
    """{(pid, task): (ns on a CPU, ns waiting for one)} by the scheduler's own clock."""
    times = {}
    for pid in pids:
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                fields = Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()
            except FileNotFoundError:
                continue
            times[(pid, int(task))] = (int(fields[0]), int(fields[1]))
    return times


def ticks_user_system(pids):
    """User and system ticks of the processes: coarser than task_times, but it tells the two apart."""
    user = system = 0
    for pid in pids:
        fields = stat_fields(pid)
        if fields:
            user += int(fields[11])
            system += int(fields[12])
    return user, system


def core_times(core):
    """(busy, stolen, all) ticks of a core."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            ticks = [int(word) for word in line.split()[1:9]]
            return sum(ticks) - ticks[3] - ticks[4], ticks[7], sum(ticks)
    raise BenchError(f"core {core} is not in /proc/stat: the bench needs two cores")


OWN_MEMORY = ("Pss_Anon", "Pss_Shmem")  # what the programs made themselves: no pages of program files
ALL_MEMORY = ("Pss",)


def memory_bytes(pids, keys=ALL_MEMORY):
    """Resident memory of the processes; pages that several share are divided among them."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.partition(":")[0] in keys:
                total += int(line.split()[1]) * 1024
    return total


class CpuSample:
    """CPU time of a process tree and of the core it runs on, now; `since` an earlier one: what was used between."""

    def __init__(self, root):
        self.pids = list(process_tree(root))
        self.tasks = task_times(self.pids)
        self.ticks = ticks_user_system(self.pids)
        self.core = core_times(PROXY_CORE)
        self.load_core = core_times(LOAD_CORE)
        self.at = time.monotonic()

    def since(self, earlier):
        zero = (0, 0)
        ran = {t: ns[0] - earlier.tasks.get(t, zero)[0] for t, ns in self.tasks.items()}
        waited = sum(ns[1] - earlier.tasks.get(t, zero)[1] for t, ns in self.tasks.items())
        user = self.ticks[0] - earlier.ticks[0]
        system = self.ticks[1] - earlier.ticks[1]
        busy, stolen, every = (now - then for now, then in zip(self.core, earlier.core))
        load_busy, _, load_every = (now - then for now, then in zip(self.load_core, earlier.load_core))
        return {
            "cpu_ns": sum(ran.values()),
            "cpu_ns_by_task": sorted((ns for ns in ran.values() if ns > 0), reverse=True),
            "waited_ns": waited,
            "user_share": user / (user + system) if user + system else 0.0,
            "core_busy": busy / every if every else 0.0,
            "core_stolen": stolen / every if every else 0.0,
            "load_core_busy": load_busy / load_every if load_every else 0.0,
            "wall_s": self.at - earlier.at,
        }


class Program:
    """A child process with its output in a file; stopped by pid, with its whole tree, and never left behind."""

    def __init__(self, name, argv, cores, log, env=None, stdin=subprocess.DEVNULL, stdout=None):
        self.name = name
        self.log = log
        full_env = dict(os.environ, LC_ALL="C", **(env or {}))

        def prepare():
            os.sched_setaffinity(0, cores)
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

        with open(log, "ab") as out:
            self.started_at = time.monotonic()
            self.process = subprocess.Popen(
                [str(word) for word in argv], stdin=stdin, stdout=stdout or out, stderr=out, env=full_env,
                preexec_fn=prepare, start_new_session=True, cwd="/")
        self.pid = self.process.pid

    def alive(self):
        return self.process.poll() is None

    def words(self):
        """The end of what it said, for error messages."""
        try:
            return Path(self.log).read_text(errors="replace")[-2000:].strip()
        except OSError:
            return ""

    def stop(self, patience=5.0):
        tree = process_tree(self.pid) if self.alive() else {}
        for wait, what in ((patience, signal.SIGTERM), (2.0, signal.SIGKILL)):
            for pid, started in tree.items() if what == signal.SIGKILL else [(self.pid, tree.get(self.pid))]:
                fields = stat_fields(pid)
                if fields and fields[19] == started and fields[0] != "Z":
                    try:
                        os.kill(pid, what)
                    except ProcessLookupError:
                        pass
            end = time.monotonic() + wait
            while time.monotonic() < end:
                self.process.poll()
                left = [p for p, s in tree.items() if (f := stat_fields(p)) and f[19] == s and f[0] != "Z"]
                if not left:
                    return
                time.sleep(0.01)


class Session:
    """The temporary folder and the programs of one run of the bench. A context: nothing outlives it."""

    def __init__(self, build, pinned=True):
        self.build = Path(build)
        self.pinned = pinned   # this script to the load's core
        self.programs = []
        self.ports = set()
        self.dir = None

    def __enter__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="sallyport-bench-"))
        self.dir.chmod(0o755)
        for what in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(what, self._interrupted)
        if self.pinned:
            os.sched_setaffinity(0, {LOAD_CORE})
        return self

    def __exit__(self, *_):
        for what in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(what, signal.SIG_IGN)
        for program in reversed(self.programs):
            program.stop(patience=2.0)
        shutil.rmtree(self.dir, ignore_errors=True)

    @staticmethod
    def _interrupted(number, _frame):
        raise KeyboardInterrupt(f"signal {number}")

    def tool(self, name):
        path = self.build / "bench" / name
        if not path.exists():
            raise BenchError(f"{path} is missing: run script/build")
        return path

    def folder(self, name):
        path = self.dir / f"{name}-{len(list(self.dir.iterdir()))}"
        path.mkdir()
        return path

    def port(self):
        """A free port below those the kernel gives to outgoing connections, so that none of the load's can take it."""
        for _ in range(1000):
            port = random.randrange(20000, 32000)
            if port in self.ports:
                continue
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind(("127.0.0.1", port))
                except OSError:
                    continue
            self.ports.add(port)
            return port
        raise BenchError("no free port found")

    def start(self, name, argv, cores, log=None, **options):
        log = log or self.dir / f"{name}.{len(self.programs)}.out"
        program = Program(name, argv, cores, log, **options)
        self.programs.append(program)
        return program

    def stop(self, program):
        program.stop()
        if program in self.programs:
            self.programs.remove(program)


# --- asking ----------------------------------------------------------------------------------------------------------


def any_server():
    """A TLS client that trusts whom it talks to: itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Client:
    """One kept-alive connection that asks for small things."""

    def __init__(self, port, timeout=2.0, tls=False):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = any_server().wrap_socket(self.socket, server_hostname="api.example.com")

    def get(self, path, host="api.example.com", headers=()):
        """(status, body); the answer must have a Content-Length."""
        self.socket.sendall("\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(body) < length:
            body += self._more()
        return int(head.split(b" ")[1]), body

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise OSError("the connection was closed")
        return data

    def close(self):
        self.socket.close()


def ask_http(port, path="/", tls=False, headers=()):
    """The status of one GET on a new connection."""
    client = Client(port, tls=tls)
    try:
        return client.get(path, headers=headers)[0]
    finally:
        client.close()


def ask_h2(session, port, args):
    """200 when the HTTP/2 load's one request is answered as it should be."""
    argv = [session.tool("load_h2"), "--to", f"127.0.0.1:{port}", "--connections", "1", "--requests", "1", *args]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        raise OSError(done.stderr.strip() or done.stdout.strip())
    return 200


def wait_ready(program, ask, deadline_s=20.0, pause_s=0.002):
    """Asks until a 200; the seconds since the program was started."""
    end = time.monotonic() + deadline_s
    last = "no answer"
    while time.monotonic() < end:
        if not program.alive():
            raise BenchError(f"{program.name} ended at once: {program.words()}")
        try:
            status = ask()
            if status == 200:
                return time.monotonic() - program.started_at
            last = f"status {status}"
        except OSError as e:
            last = str(e)
        time.sleep(pause_s)
    raise BenchError(f"{program.name} is not ready after {deadline_s:.0f} s ({last}): {program.words()}")


# --- load ------------------------------------------------------------------------------------------------------------


class Load:
    """build/bench/load or load_h2, driven line by line. Its stdin is the gate: see load.c."""

    def __init__(self, session, port, args, cores=(LOAD_CORE,), tool="load"):
        self.session = session
        argv = [session.tool(tool), "--to", f"127.0.0.1:{port}", *args]
        self.program = session.start(tool, argv, set(cores), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process = self.program.process

    def event(self, wanted):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise BenchError(f"load ended with status {self.process.returncode}: {self.program.words()}")
        event = json.loads(line)
        if event["event"] != wanted:
            raise BenchError(f"load said {event['event']} instead of {wanted}")
        return event

    def go(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def end(self):
        self.process.stdin.close()
        rest = self.process.stdout.read()
        self.process.wait(timeout=20)
        self.process.stdout.close()
        if self.program in self.session.programs:
            self.session.programs.remove(self.program)
        return [json.loads(line) for line in rest.splitlines()]


def measure_load(session, port, root, args, tool="load", helper=None):
    """
    One gated run: the load's result, with the CPU time of the tree under `root` between its two ends; also that of the
    tree under `helper`.
    """
    load = Load(session, port, ["--gate", *args], tool=tool)
    load.event("ready")
    before, helper_before = CpuSample(root), CpuSample(helper) if helper else None
    load.go()
    result = load.event("result")
    used = CpuSample(root).since(before)
    helper_ns = CpuSample(helper).since(helper_before)["cpu_ns"] if helper else 0
    load.end()
    requests = max(1, result["requests"])
    result.update(used)
    result["helper_us_per_request"] = helper_ns / 1000.0 / requests
    result["cpu_us_per_request"] = used["cpu_ns"] / 1000.0 / requests
    result["cpu_share"] = used["cpu_ns"] / 1e9 / result["seconds"]
    result["load_share"] = result["own_cpu_seconds"] / result["seconds"]
    result["wait_share"] = used["waited_ns"] / 1e9 / result["seconds"]
    result["foreign_share"] = max(0.0, result["core_busy"] - result["cpu_share"])
    return result


def measure_idle(session, port, root, connections, args, settle_s=1.0):
    """Memory for each of N connections that made one request and then stay silent."""
    time.sleep(settle_s / 2)
    before = memory_bytes(process_tree(root), OWN_MEMORY)
    load = Load(session, port, ["--idle", str(connections), *args])
    result = load.event("idle")
    time.sleep(settle_s)
    after = memory_bytes(process_tree(root), OWN_MEMORY)
    everything = memory_bytes(process_tree(root))
    ended = load.end()
    result["closed_by_server"] = ended[-1]["closed_by_server"] if ended else -1
    result["own_before"] = before
    result["own_after"] = after
    result["memory_after"] = everything
    result["bytes_per_connection"] = (after - before) / connections
    return result
