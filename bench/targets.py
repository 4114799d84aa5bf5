"""What is measured: how each program is found, configured, started and known to be ready."""

import os
import pwd
import re
import shutil
import socket
import subprocess
from pathlib import Path

import identities
from harness import LOAD_CORE, PROXY_CORE, BenchError, ask_h2, ask_http, wait_ready

CONFIGS = Path(__file__).resolve().parent / "peers"


# What a configuration is made for. Lines of a template that begin with @mode@ or @one|other@ are for these alone.
MODES = {
    "plain": "HTTP/1.1 without TLS",
    "tls": "HTTP/1.1 over TLS to clients, HTTP/1.1 upstream",
    "h2": "HTTP/2 over TLS to clients, HTTP/1.1 upstream",
    "grpc": "HTTP/2 without TLS on both sides",
    "full": "HTTP/1.1 without TLS; the caller known by a token, told to the upstream, limited",
    "forward": "the same, known by the word of an Auth Service",
    "address": "HTTP/1.1 without TLS; a limit for each client's address",
    "header": "HTTP/1.1 without TLS; a limit for each value of a header",
    "exact": "HTTP/1.1 without TLS; a limit for each client's address, in Redis",
    "leased": "the same, with tokens that are fetched ahead",
    "unguarded": "HTTP/1.1 without TLS; no breaker, no ejection, no retries",
    "open": "HTTP/1.1 without TLS; as plain, for a breaker that is held open; peers answer 503 to all",
    "h2c": "HTTP/2 without TLS to clients, HTTP/1.1 upstream",
    "h2copen": "the same, for a breaker that is held open",
    "h2open": "as h2, for a breaker that is held open",
}

# The load that fits: its program, and what it is told besides.
LOADS = {"plain": ("load", []), "tls": ("load", ["--tls"]), "h2": ("load_h2", ["--tls"]),
         "grpc": ("load_h2", ["--grpc"])}


class Target:
    """One row of the table. `config` is a template of bench/peers/, good for `modes`; `argv` is filled in like it."""

    def __init__(self, name, binary, config=None, argv=(), version=(), env=None, sink=False, modes=("plain",)):
        self.name = name
        self.binary = binary
        self.config = config
        self.argv = argv
        self.version_argv = version
        self.env = env or {}
        self.sink = sink
        self.modes = modes

    def path(self, session):
        """The program, or None where it is not installed."""
        if self.binary is None:
            return None
        if self.binary.startswith("build:"):
            path = session.build / self.binary[6:]
            return path if path.exists() else None
        return shutil.which(self.binary, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")

    def available(self, session):
        return self.name == "direct" or self.path(session) is not None

    def version(self, session):
        if not self.version_argv:
            return ""
        try:
            done = subprocess.run([self.path(session), *self.version_argv], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return "?"
        found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
        return found.group(0) if found else "?"


TLS_AND_H2 = ("plain", "tls", "h2")
TRANSPORTS = (*TLS_AND_H2, "grpc")
CALLERS = ("full", "forward")  # whoever asks must show a token
LIMITS = ("address", "header")
IN_REDIS = ("exact", "leased")

TARGETS = {
    target.name: target
    for target in (
        # The load asks the origin itself.
        Target("direct", None),
        # Moves bytes and reads none: the floor.
        Target("relay", "build:bench/relay", argv=("127.0.0.1:@PORT@", "127.0.0.1:@ORIGIN@")),
        Target("nginx", "nginx", "nginx.conf", ("-c", "@CONFIG@", "-e", "@DIR@/error.log"), ("-v",),
               modes=(*TRANSPORTS, "full", "open", *LIMITS)),
        Target("haproxy", "haproxy", "haproxy.cfg", ("-db", "-f", "@CONFIG@"), ("-v",), sink=True,
               modes=(*TRANSPORTS, "full", "open", *LIMITS)),
        Target("h2o", "h2o", "h2o.conf", ("-c", "@CONFIG@"), ("-v",), modes=TLS_AND_H2),
        Target("caddy", "caddy", "Caddyfile", ("run", "--adapter", "caddyfile", "--config", "@CONFIG@"), ("version",),
               env={"GOMAXPROCS": "1", "HOME": "@DIR@", "XDG_DATA_HOME": "@DIR@", "XDG_CONFIG_HOME": "@DIR@"}),
        Target("envoy", "envoy", "envoy.yaml",
               ("-c", "@CONFIG@", "--concurrency", "1", "--disable-hot-restart", "-l", "error"), ("--version",)),
        Target("sallyport", "build:sallyport", "sallyport.yaml", ("run", "-c", "@CONFIG@"), ("version",),
               modes=tuple(MODES)),
    )
}

PEERS = ("nginx", "haproxy")  # the two whose better one is the measure


class Running:
    """A started target: where it listens, and the pid at the root of its processes."""

    def __init__(self, target, program, port, status, config, directory, helpers):
        self.target = target
        self.program = program
        self.pid = program.pid
        self.port = port
        self.status = status
        self.config = config
        self.dir = directory
        self.helpers = helpers  # a log server, an Auth Service, a Redis
        self.ready_s = 0.0


def fill(text, values):
    """
    Replaces @NAME@ by its value; an unknown name is a mistake in the template. A line that begins with @mode@ stays,
    without this mark, when values["MODE"] is that one.
    """

    def choose(match):
        modes = match.group(2).split("|")
        if not set(modes) <= set(MODES):
            raise BenchError(f"@{match.group(2)}@ in a template is no mode")
        return match.group(1) + match.group(3) if values["MODE"] in modes else ""

    def one(match):
        if match.group(1) not in values:
            raise BenchError(f"@{match.group(1)}@ in a template is not known")
        return str(values[match.group(1)])

    text = re.sub(r"^( *)@([a-z0-9|]+)@ (.*\n)", choose, text, flags=re.M)
    return re.sub(r"@([A-Z_]+)@", one, text)


def template(target):
    return (CONFIGS / target.config).read_text()


def certificate(session):
    """One self-signed certificate of a P-256 key for the whole run, as files."""
    paths = {name: session.dir / file for name, file in (
        ("CERT", "cert.pem"), ("KEY", "key.pem"), ("CERT_AND_KEY", "both.pem"))}
    if not paths["CERT_AND_KEY"].exists():
        subprocess.run([
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
            "-subj", "/CN=api.example.com", "-addext", "subjectAltName=DNS:api.example.com",
            "-keyout", paths["KEY"], "-out", paths["CERT"]], check=True, capture_output=True, timeout=30)
        paths["CERT_AND_KEY"].write_text(paths["CERT"].read_text() + paths["KEY"].read_text())
        for path in paths.values():
            path.chmod(0o600)
    return paths


def one_token(session):
    return identities.make(session)["TOKENS"].read_text().partition("\n")[0]


def ready(session, running, mode, pause_s):
    """Waits until the target answers; the gateway by its own word, as a start is timed by it."""
    port = running.port
    as_caller = lambda: ask_http(port, headers=(f"Authorization: Bearer {one_token(session)}",))
    ask = {
        "tls": lambda: ask_http(port, tls=True),
        "h2": lambda: ask_h2(session, port, ["--tls"]),
        "h2open": lambda: ask_h2(session, port, ["--tls"]),
        "h2c": lambda: ask_h2(session, port, []),
        "h2copen": lambda: ask_h2(session, port, []),
        "open": lambda: 200 if ask_http(port) in (200, 503) else 0,
        "grpc": lambda: ask_h2(session, port, ["--grpc"]),
        "full": as_caller,
        "forward": as_caller,
    }.get(mode, lambda: ask_http(port))
    if running.target.name == "sallyport":
        running.ready_s = wait_ready(running.program, lambda: ask_http(running.status, "/readyz"), pause_s=pause_s)
        wait_ready(running.program, ask)
    else:
        running.ready_s = wait_ready(running.program, ask, pause_s=pause_s)


def own_user():
    """The user the bench runs as: peers must write their logs into its folder, so they keep it."""
    return pwd.getpwuid(os.getuid()).pw_name


def start(session, name, origins, mode="plain", cores=(PROXY_CORE,), workers=1, config_text=None, env=None,
          pause_s=0.002):
    """Starts a target in front of the origins' ports and waits until it answers."""
    target = TARGETS[name]
    directory = session.folder(name)
    values = {
        "MODE": mode,
        "PORT": session.port(),
        "STATUS": session.port(),
        "ADMIN": session.port(),
        "SINK": session.port(),
        "AUTH": session.port(),
        "REDIS": session.port(),
        "ORIGIN": origins[0],
        "TARGETS": ", ".join(f'{{ address: "127.0.0.1:{port}" }}' for port in origins),
        "DIR": directory,
        "LOG": directory / "access.log",
        "USER": own_user(),
        "WORKERS": workers,
        "ROUTES": "",
        "LEEWAY": 30,
        "CONFIG": directory / (target.config or "none"),
        **(certificate(session) if mode in ("tls", "h2", "h2open") else {}),
        **(identities.make(session) if mode in CALLERS else {}),
    }
    helpers = []
    if target.sink:
        argv = [session.tool("sink"), f"127.0.0.1:{values['SINK']}", values["LOG"]]
        helpers.append(session.start("sink", argv, {LOAD_CORE}))
    if mode in CALLERS:
        argv = [session.tool("origin"), f"127.0.0.1:{values['AUTH']}", "0", *identities.FIELDS]
        helpers.append(session.start("auth", argv, {LOAD_CORE}))
    if mode in IN_REDIS:
        helpers.append(start_redis(session, values["REDIS"], directory))
    if target.config:
        Path(values["CONFIG"]).write_text(fill(config_text or template(target), values))
    argv = [target.path(session), *(fill(word, values) for word in target.argv)]
    all_env = {key: fill(value, values) for key, value in {**target.env, **(env or {})}.items()}
    program = session.start(name, argv, set(cores), log=directory / "output", env=all_env)
    running = Running(target, program, values["PORT"], values["STATUS"], Path(values["CONFIG"]), directory, helpers)
    running.values = values
    ready(session, running, mode, pause_s)
    return running


def start_redis(session, port, directory):
    """On the load's core: the other one is the gateway's alone."""
    redis = shutil.which("redis-server")
    if not redis:
        raise BenchError("redis-server is missing: run script/bootstrap --with-bench")
    program = session.start("redis", [redis, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                                      "--dir", directory], {LOAD_CORE})
    wait_ready(program, lambda: ask_redis(port))
    return program


def ask_redis(port):
    """200 when it answers, as an HTTP server would say it."""
    with socket.create_connection(("127.0.0.1", port), timeout=2.0) as client:
        client.sendall(b"PING\r\n")
        return 200 if client.recv(64) == b"+PONG\r\n" else 0


def stop(session, running):
    session.stop(running.program)
    for helper in running.helpers:
        session.stop(helper)
    shutil.rmtree(running.dir, ignore_errors=True)


def start_origin(session, core=LOAD_CORE, mode="plain"):
    port = session.port()
    tool = "origin_h2" if mode == "grpc" else "origin"
    program = session.start(tool, [session.tool(tool), f"127.0.0.1:{port}"], {core})
    wait_ready(program, lambda: ask_h2(session, port, ["--grpc"]) if mode == "grpc" else ask_http(port))
    return program, port
