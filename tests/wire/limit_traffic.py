"""Traffic for limits: many connections to several gateways, each with one request at a time, and for each request when it
was sent, when its answer was there, and what it was. One thread with one epoll, so that the times are close.
"""
import dataclasses
import heapq
import math
import re
import selectors
import time
from collections import defaultdict

from limit_model import Refusal, Take, held_ahead, widen
from peers import Raw, request

ANSWERED_WITHIN_S = 30
SETTLED_NS = 4 * 10**9   # redis.deadline of these tests
TICK_S = 0.2


@dataclasses.dataclass
class Use:
    """One limit as a request meets it: whose bucket, its rules by what a refusal calls them, the request's cost."""
    bucket: tuple
    rules: dict
    cost: int
    is_told: bool = False   # by the answer: one is taken before


@dataclasses.dataclass
class Stream:
    """Requests of one kind. uses(cost): [Use] of one; pace(elapsed): seconds until a connection's next one; cost(): what its
    answer is to say."""
    path: str
    fields: list
    uses: callable
    pace: callable
    cost: callable


class Line:
    """A connection."""

    def __init__(self, gateways, number, stream):
        self.stream, self.owing = stream, []
        self.gateway = number % len(gateways)
        self.client = Raw(gateways[self.gateway].port)

    def send(self):
        self.cost = self.stream.cost()
        self.sent = time.monotonic_ns()
        self.client.send(request(self.stream.path.format(cost=self.cost), "GET", *self.stream.fields))

    def receive(self):
        answer = self.client.response()
        self.received = time.monotonic_ns()
        return answer


class Seen:
    """What became of the requests, by bucket and rule, when `mode` decides about them:

    - local: each gateway has buckets of its own;
    - exact: Redis has them, and decides about all limits of a request at one moment. In the other modes what one limit
      grants is given back when another refuses;
    - leased: Redis has them, and gateways take tokens ahead."""

    def __init__(self, mode, gateways):
        self.mode, self.gateways = mode, gateways
        self.is_shared, self.is_atomic = mode != "local", mode == "exact"
        self.takes, self.refusals, self.rules = defaultdict(list), defaultdict(list), {}
        self.lines = defaultdict(set)   # on which tokens may be waiting for what another limit says
        self.admitted = self.refused = 0

    def key(self, use, gateway, name):
        return (*use.bucket, *(() if self.is_shared else (gateway,)), name)

    def note(self, line, answer):
        assert answer and answer.status in (200, 429), answer
        uses = [(use, name, self.key(use, line.gateway, name)) for use in line.stream.uses(line.cost) for name in use.rules]
        for use, name, key in uses:
            self.rules[key] = use.rules[name]
            if len(uses) > 1:
                self.lines[key].add(line)
        if answer.status == 200:
            self.admitted += 1
            self.note_takes(line, uses)
        else:
            self.refused += 1
            self.note_refusal(line, uses, re.match(r"the (?:limit|quota) (\S+) is used up;", answer.json["detail"])[1])

    def note_takes(self, line, uses):
        early, late = widen(line.sent, line.received)
        settled = {"local": late, "exact": math.inf, "leased": late + SETTLED_NS}[self.mode]
        for owing in line.owing:   # a worker's commands to Redis arrive in their order, and a line is at one worker
            owing.late = late
        line.owing = []
        for use, _, key in uses:
            self.takes[key].append(Take(early, late, 1 if use.is_told else use.cost))
            if use.is_told and use.cost > 1:
                self.takes[key].append(Take(early, settled, use.cost - 1, needs=False))
                line.owing += self.takes[key][-1:] if self.mode == "exact" else []

    def note_refusal(self, line, uses, refuser):
        early, late = widen(line.sent, line.received)
        assert refuser in [name for _, name, _ in uses], refuser
        for use, name, key in uses:
            tokens = 1 if use.is_told else use.cost
            if name == refuser:
                self.refusals[key].append(Refusal(early, late, tokens))
            elif not self.is_atomic:
                self.takes[key].append(Take(early, late, tokens, is_lent=True))

    def faults(self):
        """What the model does not allow."""
        found = []
        for key, rule in self.rules.items():
            takes, refusals = self.takes[key], self.refusals[key]
            held = 0
            if self.mode == "leased":
                dearest = max(take.tokens for take in takes if take.needs)
                held = held_ahead(rule.most, self.gateways, dearest) + len(self.lines[key]) * dearest
            over, spare = rule.most_over(takes, held), rule.most_spare(takes, refusals) - held
            admitted = sum(take.needs and not take.is_lent for take in takes)
            told = f"{'/'.join(map(str, key))}: {rule}: {admitted} admitted, {float(-over):.3f} tokens below the bound"
            if refusals:
                told += f"; {len(refusals)} refused, {float(-spare):.3f} tokens too few at the one that had most"
            print(told + (f" ({held} may be held by gateways and waiting requests)" if held else ""))
            if over > 0 or spare >= 0:
                found.append(told)
        return found


def drive(seen, gateways, streams, lines_each, seconds, on_tick=lambda: None, is_enough=lambda: True):
    """lines_each: connections of each stream, spread over the gateways. It goes on until is_enough."""
    lines = [Line(gateways, i, stream) for stream in streams for i in range(lines_each)]
    selector = selectors.DefaultSelector()
    begin = tick = time.monotonic()
    due, waiting, is_over = [(begin, i) for i in range(len(lines))], 0, False
    for i, line in enumerate(lines):
        selector.register(line.client.socket, selectors.EVENT_READ, i)
    while waiting or not is_over:
        now = time.monotonic()
        assert now < begin + seconds + ANSWERED_WITHIN_S, f"{waiting} requests are not answered, or not enough are"
        is_over = is_over or (now > begin + seconds and is_enough())
        if now > tick:
            on_tick()
            tick = now + TICK_S
        while due and due[0][0] <= now and not is_over:
            lines[heapq.heappop(due)[1]].send()
            waiting += 1
        for key, _ in selector.select(max(min(due[0][0], tick) - now, 0) if due and not is_over else TICK_S):
            line = lines[key.data]
            seen.note(line, line.receive())
            now = time.monotonic()
            heapq.heappush(due, (now + line.stream.pace(now - begin), key.data))
            waiting -= 1
    for line in lines:
        line.client.close()
    selector.close()
