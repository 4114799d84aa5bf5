"""One gateway for most tests of this directory (wire.py). Each test that asks for it begins with every upstream in its
plain state and ends with: no exchange lives, no connection is lent, the worker process is the same.
"""
import contextlib

import pytest

from certificates import Pki
from echo_program import Echo
from gateway import Gateway
from h2_wire import H2Wire
from secure import SecureWire
from wire import Wire


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def whole_wire(tmp_path_factory):
    with Wire(tmp_path_factory.mktemp("wire")) as wire:
        yield wire


@pytest.fixture
def wire(whole_wire):
    whole_wire.begin()
    yield whole_wire
    whole_wire.end()


@pytest.fixture(scope="session")
def whole_secure_wire(tmp_path_factory, pki):
    with SecureWire(tmp_path_factory.mktemp("secure-wire"), pki) as wire:
        yield wire


@pytest.fixture
def secure(whole_secure_wire):
    whole_secure_wire.begin()
    yield whole_secure_wire
    whole_secure_wire.end()


@pytest.fixture(scope="session")
def whole_h2_wire(tmp_path_factory, pki):
    with H2Wire(tmp_path_factory.mktemp("h2-wire"), pki) as wire:
        yield wire


@pytest.fixture
def h2_wire(whole_h2_wire):
    whole_h2_wire.begin()
    yield whole_h2_wire
    whole_h2_wire.end()


@pytest.fixture(params=["plain", "tls"])
def h2_client(h2_wire, request):
    """A client that speaks HTTP/2, with prior knowledge and over TLS."""
    return h2_wire.h2(request.param)


@pytest.fixture(scope="module")
def whole_echo():
    with Echo("--seed", "7") as echo:
        yield echo


@pytest.fixture
def echo(whole_echo):
    """sallyport-echo by itself."""
    yield whole_echo
    whole_echo.control("outage?end=1")
    whole_echo.control("load?reset=1")


@pytest.fixture
def make_echo():
    """Echo(options…), ended whatever happens."""
    with contextlib.ExitStack() as made:
        yield lambda *options: made.enter_context(Echo(*options))


@pytest.fixture
def make(tmp_path):
    """Gateway(config…) in the test's directory, ended whatever happens."""
    made = []

    def new(config=None, **more):
        made.append(Gateway(tmp_path, config, **more))
        return made[-1]

    yield new
    for gateway in made:
        gateway.kill()
