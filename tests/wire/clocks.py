"""Programs whose clocks are wrong, by a preloaded library (tests/peers/clock.c)."""
import datetime
import struct
import time

import preload
from gateway import BUILD, ask, logged

LIBRARY = BUILD / "tests" / "peers" / "clock.so"
WALL, MONOTONIC = 0, 1
LATE_S = 0.3   # what a busy machine may add to the time that is shown


class Clock:
    """ahead_s: so many seconds are both clocks of the program ahead. A list: its wall clock jumps from one to the next at each
    jump(), as one does that is set right; the other clock never does. environment: the program's."""

    def __init__(self, file, ahead_s):
        self.map = preload.shared_page(file)
        self.jumps = ahead_s if isinstance(ahead_s, list) else [ahead_s]
        self.next = 0
        self.environment = preload.environment(LIBRARY, "CLOCK", file)
        if len(self.jumps) == 1:
            self.set(MONOTONIC, ahead_s)
        self.jump()

    def set(self, clock, ahead_s):
        struct.pack_into("q", self.map, 8 * clock, round(ahead_s * 10**6))

    def jump(self):
        self.ahead_s = self.jumps[self.next % len(self.jumps)]
        self.next += 1
        self.set(WALL, self.ahead_s)

    def reads(self, clock):
        """How often the program has looked at it."""
        return struct.unpack_from("q", self.map, 8 * (2 + clock))[0]

    def check(self, gateway, path, log):
        """That it is what the gateway goes by: its access log says when requests for the path were, at each jump."""
        before = self.reads(MONOTONIC)
        for i, _ in enumerate(self.jumps):
            began = time.time()
            assert ask(gateway.port, f"{path}/{i}").status == 200
            ended = time.time()
            shown = unix_seconds(logged(log, f'"path":"{path}/{i}"')[0]["ts"])
            assert began + self.ahead_s - LATE_S < shown < ended + self.ahead_s + LATE_S, (began, shown, self.ahead_s)
            self.jump()
        assert self.reads(MONOTONIC) > before


def unix_seconds(timestamp):
    return datetime.datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
