"""The test's side of faulty.c: which calls of a gateway's worker process fail."""
import struct

import preload
from gateway import BUILD

FIELDS = ["kind", "pid", "skip", "times", "error", "failed"]
KINDS = ["none", "memory", "send", "recv", "connect", "accept", "socket", "epoll_ctl"]
FOR_EVER = 2**31 - 1
LIBRARY = BUILD / "tests" / "fault" / "faulty.so"


def sanitizer():
    """The sanitizer runtime the gateway is built with, or None."""
    program = (BUILD / "sallyport").read_bytes()
    return next((name for name in ("asan", "tsan") if b"__%s_init" % name.encode() in program), None)


class Faults:
    def __init__(self, directory):
        self.path = directory / "faulty"
        self.map = preload.shared_page(self.path)

    def environment(self):
        return preload.environment(LIBRARY, "FAULTY", self.path)

    def set(self, **values):
        for name, value in values.items():
            struct.pack_into("i", self.map, 4 * FIELDS.index(name), value)

    def get(self, name):
        return struct.unpack_from("i", self.map, 4 * FIELDS.index(name))[0]

    def arm(self, pid, kind, skip, times, error):
        """The calls after `skip` fail, so many times; error 0: they move one byte only."""
        self.set(kind=0)
        self.set(pid=pid, skip=skip, times=times, error=error, failed=0)
        self.set(kind=KINDS.index(kind))

    def disarm(self):
        """How many calls failed."""
        self.set(kind=0)
        return self.get("failed")
