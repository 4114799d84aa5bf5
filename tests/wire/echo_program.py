"""build/sallyport-echo as a test's service, and a client that sees bytes."""
import json
import os
import socket
import subprocess
import urllib.request

BUILD = os.environ.get("SALLYPORT_BUILD") or os.path.join(os.path.dirname(__file__), "..", "..", "build")
DEADLINE_S = 20


class Echo:
    """Serves on a free port, is told what to do on another (--control). A context: it ends with it, whatever happens."""

    def __init__(self, *args):
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "sallyport-echo"), "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--name", "orders",
             *args], stdout=subprocess.PIPE, text=True)
        self.port, self.control_port = (int(self.process.stdout.readline().rsplit(":", 1)[1]) for _ in range(2))
        self.url = f"http://127.0.0.1:{self.port}"

    def connect(self):
        return Raw(self.port)

    def control(self, path):
        """The answer of /_control/PATH, as a dictionary."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.control_port}/_control/{path}", timeout=DEADLINE_S) as answer:
            return json.load(answer)

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        status = self.stop()
        assert failure or status == 0, f"ended with status {status}"

    def stop(self):
        self.process.terminate()
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()   # only what is still there
            self.process.stdout.close()


class Raw:
    """A client that sees bytes."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self.bytes = b""

    def send(self, data):
        self.socket.sendall(data)
        return self

    def until(self, end):
        """Everything up to and with end."""
        while end not in self.bytes:
            data = self.socket.recv(65536)
            assert data, f"closed after {self.bytes!r}"
            self.bytes += data
        got, _, self.bytes = self.bytes.partition(end)
        return got + end

    def exactly(self, n):
        while len(self.bytes) < n:
            data = self.socket.recv(65536)
            assert data, f"closed after {self.bytes!r}"
            self.bytes += data
        got, self.bytes = self.bytes[:n], self.bytes[n:]
        return got

    def rest(self):
        """Everything up to the end, and whether that was a reset."""
        try:
            while data := self.socket.recv(65536):
                self.bytes += data
        except ConnectionResetError:
            return self.bytes, True
        return self.bytes, False

    def silent(self, seconds=0.2):
        """Nothing came within that time: the one thing that takes waiting to see."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(65536)
        except socket.timeout:
            return True
        finally:
            self.socket.settimeout(DEADLINE_S)
        self.bytes += data
        return False

    def close(self):
        self.socket.close()


def get(path, *fields, version="1.1"):
    lines = [f"GET {path} HTTP/{version}", "Host: echo", *fields, "", ""]
    return "\r\n".join(lines).encode()


def head_of(data):
    head, _, body = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), body
