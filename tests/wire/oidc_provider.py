"""The npm oidc-provider (tests/peers/oidc) as the Auth Service: an implementation of other people. It answers to the same
names as auth_service.AuthService as far as the tests of both need them.
"""
import base64
import json
import shutil
import subprocess
import threading
import urllib.parse

from gateway import ROOT, ask, free_port, until

PEER = ROOT / "tests" / "peers" / "oidc"
SECRET = "a-secret-of-the-tests"


def why_not():
    """Why it cannot be started; None when it can."""
    if not shutil.which("node"):
        return "node is not installed"
    if not (PEER / "node_modules" / "oidc-provider").is_dir():
        return f"the npm modules of {PEER.relative_to(ROOT)} are not installed (script/bootstrap test)"
    return None


class OidcProvider:
    jwks_path, introspection_path = "/jwks", "/token/introspection"

    def __init__(self):
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.process, self.output = None, []

    def url(self, path):
        return self.issuer + path

    def start(self):
        self.process = subprocess.Popen(["node", "server.js", str(self.port), SECRET], cwd=PEER, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=lambda: self.output.extend(self.process.stdout), daemon=True).start()

        def is_ready():
            assert self.process.poll() is None, self.output
            return "ready\n" in self.output
        until(is_ready, lambda: f"the oidc-provider: {self.output}")
        return self

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def post(self, path, client, **form):
        basic = base64.b64encode(f"{client}:{SECRET}".encode()).decode()
        return ask(self.port, path, "POST", urllib.parse.urlencode(form),
                   {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Basic {basic}"})

    def token(self, algorithm=None, scope="orders:read orders:write", client="shop"):
        """A JWT signed with this algorithm; opaque without one."""
        form = {"grant_type": "client_credentials", "scope": scope}
        if algorithm:
            form["resource"] = f"urn:orders:{algorithm}"
        answer = self.post("/token", client, **form)
        assert answer.status == 200, answer
        return json.loads(answer.body)["access_token"]

    def revoke(self, token, client="shop"):
        return self.post("/token/revocation", client, token=token)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()
