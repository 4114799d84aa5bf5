"""Real servers of Redis (or Valkey, with SALLYPORT_REDIS=valkey-server) on free ports of 127.0.0.1: one, a master with
replicas and Sentinels, a Cluster. Each is a process of the test's own, ended by its id.
"""
import os
import signal
import subprocess
import time

import redis

from gateway import DEADLINE, free_port, until

PROGRAM = os.environ.get("SALLYPORT_REDIS", "redis-server")
NODE_TIMEOUT_MS = 1500   # a Cluster's and the Sentinels' patience with a silent node


def pairs(flat):
    return dict(zip(flat[::2], flat[1::2]))


class Server:
    def __init__(self, directory, *options, port=None, sentinel=None):
        self.directory, self.options, self.port = directory, options, port or free_port()
        self.sentinel, self.process = sentinel, None
        directory.mkdir(exist_ok=True)

    def start(self):
        words = [PROGRAM]
        if self.sentinel:
            file = self.directory / "sentinel.conf"
            if not file.exists():
                file.write_text(self.sentinel)
            words.append(str(file))
        words += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        words += ["--sentinel"] if self.sentinel else ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen([*words, *self.options], stdout=log, stderr=log)
        until(self.answers, lambda: f"{PROGRAM} answers\n{self.log()}")
        return self

    def log(self):
        return (self.directory / "log").read_text(errors="replace")[-2000:]

    def client(self, **options):
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=DEADLINE, decode_responses=True, **options)

    def ask(self, *words):
        with self.client() as client:
            return client.execute_command(*words)

    def answers(self):
        try:
            return self.ask("PING")
        except redis.RedisError:
            return False

    def errors(self, name):
        """How often it has answered so."""
        found = self.ask("INFO", "errorstats").get(f"errorstat_{name}", "count=0")
        return int(found.removeprefix("count="))

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class Fleet:
    servers = ()

    def end(self):
        for server in self.servers:
            server.kill()


class Watched(Fleet):
    """A master, a replica, three Sentinels."""
    name = "mymaster"

    def __init__(self, directory):
        self.master = Server(directory / "master")
        self.replica = Server(directory / "replica", "--replicaof", "127.0.0.1", str(self.master.port))
        conf = (f"sentinel monitor {self.name} 127.0.0.1 {self.master.port} 2\n"
                f"sentinel down-after-milliseconds {self.name} {NODE_TIMEOUT_MS}\n"
                f"sentinel failover-timeout {self.name} 5000\n")
        self.sentinels = [Server(directory / f"sentinel-{i}", sentinel=conf) for i in range(3)]
        self.servers = [self.master, self.replica, *self.sentinels]

    def start(self):
        for server in self.servers:
            server.start()
        until(self.is_ready, lambda: f"replica and Sentinels know each other\n{self.sentinels[0].log()}")
        return self

    def is_ready(self):
        masters = [pairs(sentinel.ask("SENTINEL", "MASTER", self.name)) for sentinel in self.sentinels]
        return (self.replica.ask("INFO", "replication")["master_link_status"] == "up" and
                all(master["num-slaves"] == "1" and master["num-other-sentinels"] == "2" for master in masters))

    def nodes(self):
        return [f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels]

    def master_port(self, sentinel):
        return int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)[1])


class Cluster(Fleet):
    """Three masters with a third of the slots each, three replicas of theirs."""

    def __init__(self, directory):
        self.servers = [Server(directory / f"node-{i}", "--cluster-enabled", "yes", "--cluster-port", str(free_port()),
                               "--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0",
                               "--cluster-require-full-coverage", "no")
                        for i in range(6)]

    def start(self):
        for server in self.servers:
            server.start()
        done = subprocess.run(["redis-cli", "--cluster", "create", *self.nodes(), "--cluster-replicas", "1", "--cluster-yes"],
                              capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == 0, done.stdout + done.stderr
        until(self.is_ready, lambda: f"the cluster is whole\n{self.servers[0].log()}")
        return self

    def is_ready(self):
        infos = [server.ask("CLUSTER", "INFO") for server in self.servers]
        return (all("cluster_state:ok" in info and "cluster_known_nodes:6" in info for info in infos) and
                all(server.ask("INFO", "replication").get("master_link_status", "up") == "up" for server in self.servers))

    def nodes(self):
        return [f"127.0.0.1:{server.port}" for server in self.servers]

    def at(self, port):
        return next(server for server in self.servers if server.port == port)

    def owner(self, slot, asked=None):
        """Of the slot, as asked sees it."""
        for first, last, (_, port, *_), *_ in (asked or self.servers[0]).ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self.at(port)
        return None
