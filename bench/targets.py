"""What is measured: how each program is found, configured, started and known to be ready."""

import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path

from harness import LOAD_CORE, PROXY_CORE, BenchError, wait_ready

CONFIGS = Path(__file__).resolve().parent / "peers"


class Target:
    """One row of the table. `config` is a file of bench/peers/MODE/; `argv` is filled in like it."""

    def __init__(self, name, binary, config=None, argv=(), version=(), env=None, sink=False, note=""):
        self.name = name
        self.binary = binary
        self.config = config
        self.argv = argv
        self.version_argv = version
        self.env = env or {}
        self.sink = sink
        self.note = note

    def path(self, session):
        """The program, or None where it is not installed."""
        if self.binary is None:
            return None
        if self.binary.startswith("build:"):
            path = session.build / self.binary[6:]
            return path if path.exists() else None
        return shutil.which(self.binary, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")

    def available(self, session, folder):
        if self.name == "direct":
            return True
        return self.path(session) is not None and (self.config is None or (CONFIGS / folder / self.config).exists())

    def version(self, session):
        if not self.version_argv:
            return ""
        try:
            done = subprocess.run([self.path(session), *self.version_argv], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return "?"
        found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
        return found.group(0) if found else "?"


TARGETS = {
    target.name: target
    for target in (
        Target("direct", None, note="the load asks the origin itself"),
        Target("relay", "build:bench/relay", argv=("127.0.0.1:@PORT@", "127.0.0.1:@ORIGIN@"),
               note="moves bytes, reads none: the floor"),
        Target("nginx", "nginx", "nginx.conf", ("-c", "@CONFIG@", "-e", "@DIR@/error.log"), ("-v",)),
        Target("haproxy", "haproxy", "haproxy.cfg", ("-db", "-f", "@CONFIG@"), ("-v",), sink=True),
        Target("h2o", "h2o", "h2o.conf", ("-c", "@CONFIG@"), ("-v",)),
        Target("caddy", "caddy", "Caddyfile", ("run", "--adapter", "caddyfile", "--config", "@CONFIG@"), ("version",),
               env={"GOMAXPROCS": "1", "HOME": "@DIR@", "XDG_DATA_HOME": "@DIR@", "XDG_CONFIG_HOME": "@DIR@"}),
        Target("envoy", "envoy", "envoy.yaml",
               ("-c", "@CONFIG@", "--concurrency", "1", "--disable-hot-restart", "-l", "error"), ("--version",)),
        Target("sallyport", "build:sallyport", "sallyport.yaml", ("run", "-c", "@CONFIG@"), ("version",)),
    )
}

PEERS = ("nginx", "haproxy")  # the two whose better one is the measure


class Running:
    """A started target: where it listens, and the pid at the root of its processes."""

    def __init__(self, target, program, port, status, config, directory, sink):
        self.target = target
        self.program = program
        self.pid = program.pid
        self.port = port
        self.status = status
        self.config = config
        self.dir = directory
        self.sink = sink
        self.ready_s = 0.0


def fill(text, values):
    """Replaces @NAME@ by its value; an unknown name is a mistake in the template."""

    def one(match):
        if match.group(1) not in values:
            raise BenchError(f"@{match.group(1)}@ in a template is not known")
        return str(values[match.group(1)])

    return re.sub(r"@([A-Z_]+)@", one, text)


def own_user():
    """The user the bench runs as: peers must write their logs into its folder, so they keep it."""
    return pwd.getpwuid(os.getuid()).pw_name


def start(session, name, origins, folder="plain", cores=(PROXY_CORE,), workers=1, config_text=None, env=None,
          pause_s=0.002):
    """Starts a target in front of the origins' ports and waits until it answers."""
    target = TARGETS[name]
    directory = session.folder(name)
    values = {
        "PORT": session.port(),
        "STATUS": session.port(),
        "ADMIN": session.port(),
        "SINK": session.port(),
        "ORIGIN": origins[0],
        "TARGETS": ", ".join(f'{{ address: "127.0.0.1:{port}" }}' for port in origins),
        "DIR": directory,
        "LOG": directory / "access.log",
        "USER": own_user(),
        "WORKERS": workers,
        "ROUTES": "",
        "CONFIG": directory / (target.config or "none"),
    }
    sink = None
    if target.sink:
        sink = session.start("sink", [session.tool("sink"), f"127.0.0.1:{values['SINK']}", values["LOG"]], {LOAD_CORE})
    if target.config:
        text = config_text or (CONFIGS / folder / target.config).read_text()
        Path(values["CONFIG"]).write_text(fill(text, values))
    argv = [target.path(session), *(fill(word, values) for word in target.argv)]
    all_env = {key: fill(value, values) for key, value in {**target.env, **(env or {})}.items()}
    program = session.start(name, argv, set(cores), log=directory / "output", env=all_env)
    running = Running(target, program, values["PORT"], values["STATUS"], Path(values["CONFIG"]), directory, sink)
    running.values = values
    if name == "sallyport":
        running.ready_s = wait_ready(program, values["STATUS"], "/readyz", pause_s=pause_s)
    else:
        running.ready_s = wait_ready(program, values["PORT"], "/", pause_s=pause_s)
    return running


def stop(session, running):
    session.stop(running.program)
    if running.sink:
        session.stop(running.sink)
    shutil.rmtree(running.dir, ignore_errors=True)


def start_origin(session, core=LOAD_CORE):
    port = session.port()
    program = session.start("origin", [session.tool("origin"), f"127.0.0.1:{port}"], {core})
    wait_ready(program, port)
    return program, port
