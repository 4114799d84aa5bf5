"""What the clients of every storm do alike."""
import asyncio
import socket
import struct
import time

HUNG_S = 60   # every wait of the gateway is shorter, and those of all requests of a connection together


def reset(writer):
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class StormClient:
    """One connection() after the other. Counts in `tally` those that were cut off, and that hung."""
    CUT = (OSError, EOFError, asyncio.LimitOverrunError)

    async def run(self, end):
        while time.monotonic() < end:
            try:
                await asyncio.wait_for(self.connection(), HUNG_S)
            except self.CUT:
                self.tally["cut"] += 1
            except asyncio.TimeoutError:
                self.tally["hung"] += 1
