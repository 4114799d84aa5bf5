"""The Auth Service under test: build/sallyport-auth with a configuration of the test's own on a free port. It can stand
beside a Gateway: `service.issuer`, `service.url("/jwks.json")`, `service.token("shop")`.
"""
import base64
import functools
import hashlib
import json
import pathlib
import signal
import subprocess
import urllib.parse

import yaml

from gateway import BUILD, ask, free_port, until

BINARY = BUILD / "sallyport-auth"
# Secrets and passwords of the clients and users below.
SECRET = "a-secret-of-the-tests"
PASSWORD = "correct horse + battery % staple"


@functools.cache
def hash_of(password):
    """As the program makes it: 60 ms of a processor, each time it is asked for."""
    return subprocess.run([BINARY, "hash"], input=password, capture_output=True, text=True, check=True).stdout.strip()


@functools.cache
def cheap_hash_of(secret):
    """Of the least cost that is taken."""
    salt = b"salt of the tests"
    spelled = (base64.urlsafe_b64encode(part).rstrip(b"=").decode()
               for part in (salt, hashlib.scrypt(secret.encode(), salt=salt, n=1024, r=8, p=1, dklen=32)))
    return "scrypt:1024:8:1:" + ":".join(spelled)


def default_clients():
    hashed = {"secret_hash": cheap_hash_of(SECRET)}
    both = ["client_credentials", "refresh_token"]
    return {
        "shop": {**hashed, "grants": both, "scopes": ["orders:read", "orders:write"], "roles": ["gold", "eu"],
                 "audiences": ["orders-api", "stock-api"], "claims": {"tenant": "acme"}},
        "rsa": {**hashed, "algorithm": "RS256", "audiences": ["orders-api"], "scopes": ["orders:read"]},
        "eddsa": {**hashed, "algorithm": "EdDSA", "audiences": ["orders-api"]},
        "opaque": {**hashed, "grants": both, "token_format": "opaque", "scopes": ["orders:read"], "roles": ["gold"]},
        "app": {**hashed, "grants": ["password", "refresh_token"], "scopes": ["orders:read", "orders:write"],
                "claims": {"tenant": "app", "channel": "web"}},
        "gateway": hashed,
        "short": {**hashed, "access": "4s"},
    }


def default_users():
    return {"ada": {"password_hash": hash_of(PASSWORD), "roles": ["admin"], "scopes": ["orders:read"],
                    "claims": {"tenant": "lovelace"}}}


def claims_of(token):
    """Unverified."""
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))


class AuthService:
    def __init__(self, directory, config=None, env=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.file, self.log_file = self.directory / "auth.yaml", self.directory / "auth.log"
        self.state = self.directory / "auth-state"
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.env = env
        self.process = None
        self.config = {"version": 1, "address": f"127.0.0.1:{self.port}", "issuer": self.issuer, "state": str(self.state),
                       "clients": default_clients(), "users": default_users(), "password_grant": True,
                       "access_log": {"output": "off"}, **(config or {})}
        self.write(self.config)

    def write(self, config):
        new = self.file.with_suffix(".new")
        new.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        new.rename(self.file)

    def url(self, path):
        return self.issuer + path

    # ---- the process ----

    def start(self):
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([BINARY, "run", "-c", self.file], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, env=self.env)

        def is_ready():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
            try:
                return ask(self.port, "/readyz", timeout=5).status == 200
            except OSError:
                return False
        until(is_ready, lambda: f"the Auth Service\n{self.log()}")
        return self

    def log(self):
        return self.log_file.read_text() if self.log_file.exists() else ""

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGTERM)
            until(lambda: self.process.poll() is not None, lambda: f"its end\n{self.log()}")
            assert self.process.returncode == 0, self.log()

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def restart(self):
        self.stop()
        return self.start()

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()

    # ---- questions ----

    def post(self, path, client=None, secret=SECRET, headers=None, **form):
        headers = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        if client:
            both = f"{urllib.parse.quote_plus(client)}:{urllib.parse.quote_plus(secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(both.encode()).decode()
        return ask(self.port, path, "POST", urllib.parse.urlencode(form), headers)

    def grant(self, client="shop", grant_type="client_credentials", **form):
        """The answer of /token as a dict; it must be a good one."""
        answer = self.post("/token", client, grant_type=grant_type, **form)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def token(self, client="shop", **form):
        return self.grant(client, **form)["access_token"]

    def refresh(self, token, client="shop", **form):
        return self.post("/token", client, grant_type="refresh_token", refresh_token=token, **form)

    def introspect(self, token, client="gateway"):
        answer = self.post("/introspect", client, token=token)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def revoke(self, token, client="shop"):
        return self.post("/revoke", client, token=token)

    def authorize(self, token=None, uri="/", method="GET"):
        headers = {"X-Forwarded-Uri": uri, "X-Forwarded-Method": method}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return ask(self.port, "/authorize", headers=headers)

    def jwks(self):
        return json.loads(ask(self.port, "/jwks.json").body)["keys"]

    def metrics(self):
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
                for line in ask(self.port, "/metrics").body.decode().splitlines() if not line.startswith("#")}
