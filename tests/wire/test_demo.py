"""What the README and script/server tell people to type works as printed."""
import os
import pathlib
import re
import signal
import socket
import subprocess

from gateway import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SALLYPORT_BUILD") or ROOT / "build").resolve()
NAMES = ["HTTP", "HTTPS", "ADMIN", "STATUS", "ECHO_1", "ECHO_2", "AUTH"]
DEADLINE_S = 60


def demo_environment():
    """Free ports, so that a demo that runs already, or another test, does not matter."""
    ports = {f"SALLYPORT_{name}_PORT": str(free_port()) for name in NAMES}
    return dict(os.environ, SALLYPORT_BUILD=str(BUILD), **ports)


def test_each_printed_request_is_answered_as_described():
    demo = subprocess.run([ROOT / "script/server", "--once"], env=demo_environment(), capture_output=True, text=True,
                          timeout=DEADLINE_S)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert len(re.findall(r"^ok$", demo.stdout, re.M)) == len(re.findall(r"^# ", demo.stdout, re.M)) > 10


def test_a_taken_port_is_named():
    env = demo_environment()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = env["SALLYPORT_ADMIN_PORT"] = str(taken.getsockname()[1])
        demo = subprocess.run([ROOT / "script/server"], env=env, capture_output=True, text=True, timeout=DEADLINE_S)
    assert demo.returncode != 0
    assert f"port {port} is taken" in demo.stderr and "SALLYPORT_ADMIN_PORT" in demo.stderr


def test_an_interrupt_stops_all_of_it():
    env = demo_environment()
    demo = subprocess.Popen([ROOT / "script/server"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    for line in demo.stdout:
        if line.startswith("Ctrl-C"):
            break
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=DEADLINE_S)   # ends when the last program has closed its output
    assert demo.returncode == 0, rest
    for name in NAMES:
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.1", int(env[f"SALLYPORT_{name}_PORT"]))) != 0, f"{name} still listens"


def test_the_first_configuration_of_the_readme_is_valid():
    shown = re.search(r"^```yaml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S).group(1)
    assert shown == (ROOT / "config/first.yaml").read_text()
    subprocess.run([BUILD / "sallyport", "check", "-c", ROOT / "config/first.yaml"], check=True)
