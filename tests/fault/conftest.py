"""Faults on every side of a gateway. The gateways, peers and waits are those of tests/wire."""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "wire"))

from watched import Watched   # noqa: E402


@pytest.fixture
def gateway(tmp_path):
    """A function that starts a gateway with this configuration; it is checked and stopped when the test ends."""
    started = []

    def start(config=None, **more):
        started.append(Watched(tmp_path, config).start(**more))
        return started[-1]

    yield start
    try:
        for running in started:
            running.check()
            running.stop()
    finally:
        for running in started:
            running.kill()
