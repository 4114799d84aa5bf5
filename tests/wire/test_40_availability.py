"""script/chaos, short: services that are out for a tenth of the time, and clients that hardly notice.

SALLYPORT_CHAOS_SECONDS (12) and SALLYPORT_CHAOS_RATE (150) make it longer and harder; script/chaos has the whole of it,
with the peers, the drawing and the isolation figures.
"""
import json
import os
import subprocess
import sys

from gateway import BUILD

CHAOS = os.path.join(os.path.dirname(__file__), "..", "..", "bench", "chaos.py")


def run(out, *options):
    done = subprocess.run([sys.executable, CHAOS, "--build", str(BUILD), "--out", str(out), "--peers", "none", *options],
                          capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "chaos.json").read_text())


def test_clients_are_served_while_services_fail(tmp_path):
    """Each endpoint is out 8 % of the time; of what a client of one would miss, a tenth is missed here at most."""
    results = run(tmp_path, "--only", "availability", "--seconds", os.environ.get("SALLYPORT_CHAOS_SECONDS", "12"),
                  "--rate", os.environ.get("SALLYPORT_CHAOS_RATE", "150"), "--scale", "5", "--share", "0.08",
                  "--burst-ms", "2000", "--seed", "1", "--kinds", "refuse,status=503")
    direct, ours = results["availability"]
    assert (direct["name"], ours["name"]) == ("direct", "sallyport")
    assert 0.8 < direct["share_ok"] < 0.97
    assert 1 - ours["share_ok"] < (1 - direct["share_ok"]) / 10, (direct["share_ok"], ours["share_ok"])
    assert ours["refused"] == ours["broken"] == 0
    assert (tmp_path / "chaos.svg").stat().st_size > 1000
