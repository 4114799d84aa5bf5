"""Rate limits of one, two and four gateways whose clocks differ by a second, held to the reference model (limit_model.py):
random limits, costs, keys, tiers, quotas and demand. What is admitted is never more than a bucket could have given, and
nobody is refused whom it would have let through; of a leased limit, nobody with more than what gateways may hold.

SALLYPORT_SEED repeats a run; SALLYPORT_LIMIT_ROUNDS=20 and SALLYPORT_LIMIT_SECONDS=10 make a longer one of each case.
"""
import datetime
import itertools
import math
import os
import random
import time
from fractions import Fraction

import pytest

from clocks import Clock
from echo_program import Echo
from gateway import until
from limit_model import Bucket, Quota, Refusal, Take, held_ahead
from limit_traffic import SETTLED_NS, Seen, Stream, Use, drive
from limit_wire import Fleet, alive, decisions
from test_24_redis import Redis

SEED = int(os.environ.get("SALLYPORT_SEED", time.time_ns() % 1_000_000))
ROUNDS = int(os.environ.get("SALLYPORT_LIMIT_ROUNDS", "1"))
SECONDS = float(os.environ.get("SALLYPORT_LIMIT_SECONDS", "2"))
LINES = 4              # connections of each stream
MOST_A_SECOND = 120    # requests of a stream
DEAREST = 6            # tokens that an answer says
QUIET_S = 1.2          # of a stream that falls silent for a while: gateways give back what they hold
AHEAD = [0.5, -0.5, [0.5, -0.5, 0], 0]   # seconds that gateways' clocks are ahead; a list: jumps
SETTINGS = {"local": {"store": "local"}, "exact": {"store": "redis"}, "leased": {"store": "redis", "sync": "leased"}}
PERIODS = {"s": 1, "m": 60, "h": 3600}


# ---- what is asked for ----

def draw_rate(rng, most):
    """Up to about so many a second."""
    if rng.random() < 0.1:
        return "140/m"   # 7/3 a second
    unit = rng.choice("ssmh")
    return f"{rng.randint((5 if unit == 's' else 2) * PERIODS[unit], max(most, 5) * PERIODS[unit])}/{unit}"


class Tier:
    def __init__(self, name, rate, burst, quota=None):
        tokens, _, unit = rate.partition("/")
        self.settings = {"rate": rate, "burst": burst}
        self.rules = {name: Bucket(Fraction(int(tokens), PERIODS[unit]), burst)}
        if quota:
            self.settings["quotas"] = [f"{quota}/month"]
            self.rules[f"{name}:month"] = Quota(quota)


class Limit:
    """cost: tokens, or None: as many as the answer says."""

    def __init__(self, name, key, cost, otherwise, **tiers):
        self.name, self.key, self.cost, self.otherwise, self.tiers = name, key, cost, otherwise, tiers

    def settings(self):
        tiers = {"tier_by": "header.X-Plan", "tiers": {name: tier.settings for name, tier in self.tiers.items()}}
        return {"key": self.key, "cost": self.cost or "header.X-Cost", "default": self.otherwise.settings,
                **(tiers if self.tiers else {})}

    def use(self, route, caller, plan, cost):
        tier = self.tiers.get(plan, self.otherwise)
        parts = {"route": route, "header.X-Caller": caller}
        key = [self.key] if isinstance(self.key, str) else self.key
        return Use((self.name, *(parts.get(part, part) for part in key)), tier.rules, self.cost or cost, not self.cost)


def is_near_the_months_end():
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.month != (now + datetime.timedelta(seconds=60 + SECONDS)).month


def draw_limits(rng, buckets):
    """[Limit] by route. buckets: that each caller has of a limit, so that each gets a part of its requests."""
    def tier(name, cost, least_burst, **more):
        most = MOST_A_SECOND * cost // buckets // 2
        return Tier(name, draw_rate(rng, most), least_burst + rng.randint(0, 4 + most // 3), **more)
    costs = [rng.randint(1, 5) for _ in range(4)]
    quota = None if is_near_the_months_end() else rng.choice([None, rng.randint(50, 300)])
    own = Limit("per_caller", "header.X-Caller", costs[0], tier("per_caller", costs[0], costs[0]))
    everyone = Limit("everyone", "global", costs[1], tier("everyone", 2 * costs[1], costs[1]))
    planned = Limit("by_plan", ["header.X-Caller", "route"], costs[2], tier("by_plan", costs[2], costs[2], quota=quota),
                    gold=tier("by_plan", 2 * costs[2], costs[2]))
    # What all connections together may owe is no more than a burst: then nothing is forgiven.
    told = Limit("told_by_answer", "header.X-Caller", None, tier("told_by_answer", costs[3], LINES * DEAREST))
    return {"own": [own], "both": [own, everyone], "planned": [planned], "again": [planned], "told": [told]}


def stream(rng, limits, buckets, route, caller, plan="none"):
    """From a little less than what the first limit gives to ten times as much."""
    first = limits[0].use(route, caller, plan, 1)
    rate = float(first.rules[limits[0].name].rate) / (limits[0].cost or DEAREST / 2) * buckets
    a_second = min(rate * rng.choice([0.8, 2, 4, 10]), MOST_A_SECOND)
    begins = rng.choice([math.inf, rng.uniform(0.2, SECONDS - QUIET_S)])

    def pace(elapsed):
        wait = rng.expovariate(a_second / LINES)
        return begins + QUIET_S - elapsed if begins < elapsed + wait < begins + QUIET_S else wait
    return Stream(f"/{route}?set=X-Cost:{{cost}}", [f"X-Caller: {caller}", f"X-Plan: {plan}"],
                  uses=lambda cost: [limit.use(route, caller, plan, cost) for limit in limits],
                  pace=pace, cost=lambda: rng.randint(1, DEAREST))


def draw_streams(rng, limits, buckets):
    asked = [(route, caller) for route in ("own", "both", "told") for caller in ("one", "two")]
    asked += [("planned", "one", "gold"), ("planned", "two"), ("again", "one", "gold")]
    return [stream(rng, limits[route], buckets, route, *who) for route, *who in asked]


# ---- who answers ----

@pytest.fixture
def echo():
    """Says X-Cost as it is asked to."""
    made = Echo()
    yield made
    made.stop()


@pytest.fixture
def skewed(tmp_path, echo):
    """Gateways whose clocks differ, and what makes those jump that do. Those before are ended."""
    made, numbers = [], itertools.count()

    def end():
        while made:
            made.pop()()

    def make(mode, count, limits):
        end()
        directory = tmp_path / str(next(numbers))
        directory.mkdir()
        redis = None
        if mode != "local":
            redis = Redis(directory / "redis").start()
            made.append(redis.kill)
        clocks = [Clock(directory / f"clock-{i}", ahead_s) for i, ahead_s in enumerate(AHEAD[:count])]
        log = directory / "access.log"
        fleet = Fleet(directory, redis, count, {limit.name: {**limit.settings(), **SETTINGS[mode]} for limit in all_of(limits)},
                      {"deadline": f"{SETTLED_NS // 10**6}ms"}, [clock.environment for clock in clocks],
                      upstreams={"echo": {"targets": [{"address": f"127.0.0.1:{echo.port}"}]}},
                      telemetry={"access_log": {"output": str(log)}},
                      routes=[*(route(name, names) for name, names in limits.items()), route("shown", (), access_log=True)])
        made.append(fleet.close)
        fleet.start()
        if redis:   # a share is one of so many
            until(lambda: all(alive(gateway) == count for gateway in fleet.gateways), "all have heard of all")
        for clock, gateway in zip(clocks, fleet.gateways):
            clock.check(gateway, f"/shown/{gateway.port}", log)
        return fleet, lambda: [clock.jump() for clock in clocks]
    yield make
    end()


def all_of(limits):
    return {limit.name: limit for each in limits.values() for limit in each}.values()


def route(name, limits, access_log=False):
    action = {"respond": {}} if all(limit.cost for limit in limits) else {"upstream": "echo"}
    return {"name": name, "match": {"path": {"prefix": f"/{name}"}}, "rate_limits": [limit.name for limit in limits],
            "access_log": access_log, **action}


# ---- the tests ----

def check(seen, fleet, limits):
    for limit in all_of(limits):
        assert not sum(decisions(gateway, limit.name)["degraded"] for gateway in fleet.gateways), limit.name
    assert seen.admitted
    faults = seen.faults()
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("mode", SETTINGS)
def test_the_model_allows_it(skewed, mode, count):
    buckets = count if mode == "local" else 1
    for turn in range(ROUNDS):
        rng = random.Random(f"{SEED} {mode} {count} {turn}")
        print(f"SALLYPORT_SEED={SEED}, {mode}, {count} gateways, round {turn}")
        limits = draw_limits(rng, buckets)
        streams = draw_streams(rng, limits, buckets)
        fleet, jump = skewed(mode, count, limits)
        seen = Seen(mode, count)
        drive(seen, fleet.gateways, streams, LINES, SECONDS, jump)
        check(seen, fleet, limits)


@pytest.mark.parametrize("mode", SETTINGS)
def test_an_attacker_gets_exactly_the_limit(skewed, mode):
    """Who asks ten times as often, of all gateways at once, gets what a bucket gives, and who keeps to the limit gets all."""
    limit = Limit("per_caller", "header.X-Caller", 1, Tier("per_caller", "60/s", 60))
    rule = limit.otherwise.rules["per_caller"]
    count = 1 if mode == "local" else 4
    fleet, jump = skewed(mode, count, {"own": [limit]})

    def stream_of(caller, pace):
        return Stream("/own", [f"X-Caller: {caller}"], lambda cost: [limit.use("own", caller, "none", 1)], pace, lambda: 0)
    streams = [stream_of("attacker", lambda _: 0), stream_of("neighbour", lambda _: LINES / (0.9 * float(rule.rate)))]
    seen = Seen(mode, count)
    attacker, neighbour = (seen.key(stream.uses(0)[0], 0, "per_caller") for stream in streams)
    drive(seen, fleet.gateways, streams, LINES, SECONDS, jump,
          lambda: len(seen.refusals[attacker]) >= 9 * len(seen.takes[attacker]))
    check(seen, fleet, {"own": [limit]})
    takes, refusals = seen.takes[attacker], seen.refusals[attacker]
    # Between the first that surely took one and the last that surely found none.
    least = rule.burst + rule.rate * Fraction(max(each.early for each in refusals) - min(take.late for take in takes), 10**9)
    most = rule.burst + rule.rate * Fraction(max(take.late for take in takes) - min(take.early for take in takes), 10**9)
    held = held_ahead(rule.burst, count, 1) if mode == "leased" else 0
    print(f"{len(takes) + len(refusals)} asked, {len(takes)} admitted, the model: {float(least) - 1:.2f} to {float(most):.2f}")
    assert least - 1 - held < len(takes) <= most
    assert seen.takes[neighbour] and not seen.refusals[neighbour]
    ahead = sum(gateway.metrics()["sallyport_rate_limit_leased_tokens_total"] for gateway in fleet.gateways)
    assert (ahead > 0) == (mode == "leased")


def simulate(rng, bucket, rate=None, burst=None, spare=0):
    """What a gateway with these would do with random requests, and when they were seen: takes, refusals."""
    rate, burst = Fraction(rate or bucket.rate) / 10**9, burst or bucket.burst
    takes, refusals, level, now = [], [], Fraction(burst), 0
    for _ in range(600):
        wait = int(rng.expovariate(3 * float(rate)))
        level, now = min(burst, level + wait * rate), now + wait
        cost, early, late = rng.randint(1, 3), now - rng.randrange(10**6), now + rng.randrange(10**6)
        if level < cost + spare:
            refusals.append(Refusal(early, late, cost))
            continue
        owed = rng.randrange(3)
        level -= cost + owed
        takes += [Take(early, late, cost), Take(early, late + rng.randrange(10**6), owed, needs=False)]
    return takes, refusals


@pytest.mark.parametrize("rate", [5, Fraction(7, 3), 200])
def test_the_model_itself(rate):
    """It allows what is right, and neither a token too many nor one too few."""
    rng, bucket = random.Random(SEED), Bucket(rate, 20)
    takes, refusals = simulate(rng, bucket)
    assert bucket.most_over(takes) <= 0 and bucket.most_spare(takes, refusals) < 0
    for wrong in ({"burst": 21}, {"rate": bucket.rate * Fraction(102, 100)}):
        assert bucket.most_over(simulate(rng, bucket, **wrong)[0]) > 0, wrong
    for wrong in ({"spare": 1}, {"rate": bucket.rate * Fraction(98, 100)}, {"burst": 19}):
        assert bucket.most_spare(*simulate(rng, bucket, **wrong)) >= 0, wrong
