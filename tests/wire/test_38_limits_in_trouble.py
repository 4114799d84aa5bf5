"""Limits under load while the one Redis is killed, frozen, cut off, slow, full, read-only or locked: a real server.
docs/RATE-LIMITS.md, "When Redis is in trouble", says what holds. The figures, on a machine that has nothing else to do:

    SALLYPORT_LIMIT_RATE=10000 SALLYPORT_LIMIT_DEADLINE=5ms SALLYPORT_BUILD=build /usr/bin/python3 -m pytest -s \\
        -p no:cacheprovider tests/wire/test_38_limits_in_trouble.py tests/wire/test_38_limits_in_fleets.py
"""
import time

import pytest

from limit_trouble import AFTER_S, IS_MEASURED, REDIS_DEADLINE, TROUBLE_S, Relay, Trial, start
from test_24_redis import Redis
from test_35_redis_limits import fill, freeze, kill, lock_out, make_replica

FEW = [kill, freeze]
MORE = [fill, make_replica, lock_out] if IS_MEASURED else []   # test_35_redis_limits.py tries them, without a clock


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    redis = Redis(tmp_path_factory.mktemp("redis"))
    try:
        yield redis.start()
    finally:
        redis.kill()


@pytest.fixture(scope="module")
def relay(redis):
    relay = Relay(redis.port)
    yield relay
    relay.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, redis):
    fleet = start(tmp_path_factory.mktemp("fleet"), redis)
    yield fleet
    fleet.close()


@pytest.fixture(scope="module")
def far_fleet(tmp_path_factory, relay):
    fleet = start(tmp_path_factory.mktemp("far"), relay, key_prefix="far:")
    yield fleet
    fleet.close()


def endure(fleet, title, trouble, seconds=TROUBLE_S):
    with Trial(fleet) as trial:
        trial.run_quiet()
        trial.begin(title)
        undo = trouble()
        trial.sleep(seconds)
        undo()
        recovered = trial.wait_redis_decides(time.monotonic())
        trial.run("after it", AFTER_S)
    trial.table(f"{title}, Redis decides again after {recovered:.2f} s", recovered)
    trial.check(recovered)


@pytest.mark.parametrize("trouble", FEW + MORE, ids=lambda trouble: trouble.__name__)
def test_one_server(fleet, redis, trouble):
    endure(fleet, trouble.__name__.replace("_", " "), lambda: trouble(redis))


@pytest.mark.skipif(not IS_MEASURED, reason="as above")
def test_a_server_that_is_slow(far_fleet, relay):
    def slow():
        relay.delay_s = 0.02 + 2 * milliseconds(REDIS_DEADLINE) / 1e3
        return quick

    def quick():
        relay.delay_s = 0
    endure(far_fleet, "slow", slow)


def test_a_server_that_is_cut_off(far_fleet, relay):
    def cut():
        relay.cut()
        return relay.heal
    endure(far_fleet, "cut off", cut, max(TROUBLE_S, 2))


def milliseconds(text):
    return float(text.removesuffix("ms"))
