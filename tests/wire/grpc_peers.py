"""A gRPC service and its client, of python3-grpcio, without generated code: messages are bytes.

usage: grpc_peers.py PORT     the service alone, in a process that a test can kill
"""
import concurrent.futures
import os
import sys
import threading
import time

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")   # tests start programs, none forks to go on

import grpc   # noqa: E402

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
SERVING, NOT_SERVING = 1, 2
WAIT = 30.0


class Service:
    """demo.Echo, demo.Other and grpc.health.v1.Health on a port. `health`: what the last one says by service."""

    def __init__(self, port, credentials=None, threads=130):
        self.calls, self.health = [], {"": SERVING}
        self.cancelled = threading.Semaphore(0)   # one for each call that was given up
        self.release = threading.Event()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(threads), options=[("grpc.so_reuseport", 0), *UNLIMITED])
        handlers = {"Unary": self.unary, "Fail": self.fail, "Late": self.late, "Remaining": self.remaining, "Hang": self.hang}
        self.server.add_generic_rpc_handlers([
            grpc.method_handlers_generic_handler("demo.Echo", {
                **{name: grpc.unary_unary_rpc_method_handler(method) for name, method in handlers.items()},
                "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
                "Hasty": grpc.stream_unary_rpc_method_handler(self.hasty),
                "Count": grpc.unary_stream_rpc_method_handler(self.count),
                "Chat": grpc.stream_stream_rpc_method_handler(self.chat)}),
            grpc.method_handlers_generic_handler("demo.Other", {
                "Unary": grpc.unary_unary_rpc_method_handler(lambda request, _: b"other " + request)}),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
                "Check": grpc.unary_unary_rpc_method_handler(self.check)})])
        address = f"127.0.0.1:{port}"
        bound = self.server.add_secure_port(address, credentials) if credentials else self.server.add_insecure_port(address)
        assert bound == port
        self.port = port
        self.server.start()

    def note(self, name, context):
        self.calls.append((name, dict(context.invocation_metadata())))

    def unary(self, request, context):
        self.note("Unary", context)
        metadata = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-initial", "one"), ("x-seen", metadata.get("x-sent", ""))))
        context.set_trailing_metadata((("x-trailing", "two"), ("x-bytes-bin", metadata.get("x-bytes-bin", b"\0\xff"))))
        return request

    def fail(self, request, context):
        """request: the number of a status, and its words."""
        self.note("Fail", context)
        number, _, words = request.decode().partition(" ")
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(next(code for code in grpc.StatusCode if code.value[0] == int(number)), words)

    def late(self, request, context):
        """As fail, when the head has gone already."""
        context.send_initial_metadata((("x-initial", "one"),))
        self.fail(request, context)

    def remaining(self, request, context):
        self.note("Remaining", context)
        left = context.time_remaining()
        return repr(left).encode()

    def hang(self, request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        self.note("Hang", context)
        if ended.wait(WAIT):
            self.cancelled.release()
        return b""

    def collect(self, requests, context):
        self.note("Collect", context)
        sizes = [len(one) for one in requests]
        return f"{len(sizes)} {sum(sizes)}".encode()

    def hasty(self, requests, context):
        """Answers before the client has said all."""
        self.note("Hasty", context)
        return b"enough: " + next(requests)

    def count(self, request, context):
        """request: how many, of how many bytes, and whether to wait for `release` in the middle."""
        self.note("Count", context)
        ended, whole = threading.Event(), threading.Event()

        def over():
            ended.set()
            if not whole.is_set():
                self.cancelled.release()

        context.add_callback(over)
        many, size, *wait = (int(number) for number in request.split())
        for i in range(many):
            if wait and i == many // 2:
                while not self.release.wait(0.01) and not ended.is_set():
                    pass
            if i == many - 1:
                whole.set()
            yield (b"%d " % i).ljust(size, b".")

    def chat(self, requests, context):
        self.note("Chat", context)
        for one in requests:
            if one == b"bye":
                return
            if one == b"break":
                context.abort(grpc.StatusCode.DATA_LOSS, "as you say")
            yield b"you said " + one

    def check(self, request, context):
        """HealthCheckRequest { string service = 1 } → HealthCheckResponse { ServingStatus status = 1 }"""
        self.calls.append(("Check", dict(context.invocation_metadata())))
        name = request[2:].decode() if request else ""
        if name not in self.health:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return bytes([8, self.health[name]])

    def count_of(self, name):
        return sum(1 for call, _ in self.calls if call == name)

    def close(self):
        self.release.set()
        self.server.stop(0).wait(WAIT)


class Client:
    """Calls through one channel, each with a deadline."""

    def __init__(self, port, authority="a.example", root=None, service="demo.Echo"):
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", authority),
                   *UNLIMITED]
        if root:
            options.append(("grpc.ssl_target_name_override", authority))
            credentials = grpc.ssl_channel_credentials(root_certificates=root)
            self.channel = grpc.secure_channel(f"127.0.0.1:{port}", credentials, options)
        else:
            self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self.service = service

    def path(self, name):
        return name if name.startswith("/") else f"/{self.service}/{name}"

    def unary(self, name, message=b"", timeout=WAIT, **more):
        """(response, call)"""
        return self.channel.unary_unary(self.path(name)).with_call(message, timeout=timeout, **more)

    def begin(self, name, message=b"", timeout=WAIT, **more):
        return self.channel.unary_unary(self.path(name)).future(message, timeout=timeout, **more)

    def collect(self, messages, name="Collect", timeout=WAIT, **more):
        return self.channel.stream_unary(self.path(name))(messages, timeout=timeout, **more)

    def count(self, message, name="Count", timeout=WAIT, **more):
        return self.channel.unary_stream(self.path(name))(message, timeout=timeout, **more)

    def chat(self, messages, name="Chat", timeout=WAIT, **more):
        return self.channel.stream_stream(self.path(name))(messages, timeout=timeout, **more)

    def fails(self, call):
        """(status, words) of what must fail."""
        try:
            result = call()
            got = list(result) if hasattr(result, "__iter__") and not isinstance(result, (bytes, tuple)) else result
        except grpc.RpcError as error:
            return error.code().name, error.details()
        raise AssertionError(f"answered: {got!r}")

    def close(self):
        self.channel.close()


def main():
    service = Service(int(sys.argv[1]))
    print("ready", flush=True)
    try:
        time.sleep(600)   # until it is killed
    finally:
        service.close()


if __name__ == "__main__":
    main()
