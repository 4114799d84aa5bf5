"""The reference model of rate limits, for what can be seen of them from outside.

A request was decided at some moment between its being sent and its answer, nobody knows which. So there are two questions:

- most_over: could a bucket have let these through? In each span of time, what was surely taken within it is at most what a
  full bucket holds and what comes back meanwhile. `held` tokens on top may have been taken out before a span that begins
  later than the first request.
- most_spare: could a bucket have refused this one? Everything that may have been taken by then is taken, each as late as
  can be: the emptiest bucket that is possible must still have too little.

Both are exact: times are whole nanoseconds, and a token is cut into as many parts as make what comes back in a nanosecond
a whole number of them.
"""
import bisect
import dataclasses
import itertools
import math
from fractions import Fraction

GRAIN_NS = 2000   # the gateway and Redis tell time in whole microseconds, each rounded down


@dataclasses.dataclass
class Take:
    """Tokens that were taken at a moment from `early` to `late`."""
    early: int
    late: float   # inf: nobody knows
    tokens: int
    needs: bool = True   # they had to be there; False: the bucket may owe them
    is_lent: bool = False   # they may have been taken, and given back by `late`


@dataclasses.dataclass
class Refusal:
    """There was too little for `tokens` at a moment from `early` to `late`."""
    early: int
    late: int
    tokens: int


def earliest_from(takes):
    """[i]: of takes[i:]"""
    return list(itertools.accumulate(reversed([take.early for take in takes]), min, initial=math.inf))[::-1]


def widen(early, late):
    return early - GRAIN_NS, late + GRAIN_NS


def held_ahead(tokens, gateways, cost):
    """What purses may hold of a burst, or of a quota, all gateways together (docs/RATE-LIMITS.md, "Exact or leased")."""
    return gateways * max(tokens // (2 * gateways), cost)


class Quota:
    """So many tokens in a window that does not end meanwhile."""

    def __init__(self, tokens):
        self.tokens = self.most = tokens

    def __str__(self):
        return f"{self.tokens} in all"

    def most_over(self, takes, held=0):
        return sum(take.tokens for take in takes if not take.is_lent) - self.tokens

    def most_spare(self, takes, refusals):
        return max((self.tokens - refusal.tokens - sum(take.tokens for take in takes if take.early <= refusal.late)
                    for refusal in refusals), default=-math.inf)


class Bucket:
    """rate: tokens a second, a Fraction."""

    def __init__(self, rate, burst):
        self.rate = Fraction(rate)
        self.burst = self.most = burst
        each_ns = self.rate / 10**9
        self.parts, self.back = each_ns.denominator, each_ns.numerator   # of a token; that come back in a nanosecond

    def __str__(self):
        return f"{self.rate}/s, burst {self.burst}"

    def most_over(self, takes, held=0):
        """The most tokens above what can be had in any span of time; at most 0 when all is well."""
        begins = sorted({take.early for take in takes})
        if not held:
            return self.over(takes, begins)
        return max(self.over(takes, begins[:1]), self.over(takes, begins) - held)

    def over(self, takes, begins):
        """In any span that begins at one of these."""
        sure = [take for take in takes if not take.is_lent and take.late < math.inf]
        admitted = sorted((take for take in sure if take.needs), key=lambda take: take.late)
        owed = sorted((take for take in sure if not take.needs), key=lambda take: take.late)
        later, later_owed = earliest_from(admitted), earliest_from(owed)
        spans, worst, asked, done = Spans(self, begins), -math.inf, -math.inf, 0
        for i, take in enumerate(admitted):
            spans.add(take)
            asked = max(asked, take.early)
            while done < len(owed) and owed[done].late <= asked:   # what is owed counts for those who come afterwards
                spans.add(owed[done])
                done += 1
            worst = max(worst, spans.most() - self.back * take.late)
            spans.settle(min(later[i + 1], later_owed[done]))
        return Fraction(worst, self.parts) - self.burst if admitted else -math.inf

    def most_spare(self, takes, refusals):
        """The most tokens that were left when a request was refused, beyond what it asked for; below 0 when all is well.

        The clock of a worker is read once a turn, and another worker's charge may be seen before that time has come: so a
        refusal is judged by its earliest moment, and what was taken until its latest."""
        events = [(take.early, 0, take) for take in takes] + [(take.late, 3, take) for take in takes if take.late < math.inf]
        events += [(each.early, 1, each) for each in refusals] + [(each.late, 2, each) for each in refusals]
        full = pending = 0   # the time at which it is full, in parts; taken at any moment from now on
        highest = {}         # by refusal under way: the latest such time
        spares = []
        for when, kind, each in sorted(events, key=lambda event: event[:2]):
            now = self.back * when
            if kind == 0:
                pending += each.tokens
            latest = max(full, now) + pending * self.parts if pending else full
            if kind == 1:
                highest[id(each)] = latest
            for key in highest:
                highest[key] = max(highest[key], latest)
            if kind == 2:
                missing = max(Fraction(highest.pop(id(each)) - self.back * each.early, self.parts), 0)
                spares.append(self.burst - each.tokens - missing)
            elif kind == 3:
                pending -= each.tokens
                if not each.is_lent:
                    full = max(full, now) + each.tokens * self.parts
        return max(spares, default=-math.inf)


class Spans:
    """For each span that begins at one of these times: what was taken within it, less what a bucket gives in that time, when
    it ends at time 0 (most() less back × its end is the truth). Those that begin before all that is still to come are kept
    as one."""

    def __init__(self, bucket, begins):
        self.bucket, self.begins = bucket, begins
        self.sums = [bucket.back * begin for begin in begins]
        self.first = self.end = 0   # of those kept singly, and that have something within
        self.settled = -math.inf

    def add(self, take):
        at = bisect.bisect_right(self.begins, take.early)
        for i in range(self.first, at):
            self.sums[i] += take.tokens * self.bucket.parts
        self.settled += take.tokens * self.bucket.parts
        self.end = max(self.end, at)

    def most(self):
        return max([self.settled, *self.sums[self.first:self.end]])

    def settle(self, begin):
        while self.first < self.end and self.begins[self.first] <= begin:
            self.settled = max(self.settled, self.sums[self.first])
            self.first += 1
