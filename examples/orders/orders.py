"""The business of the example, which both versions serve: a caller's own orders, and new ones as far as inventory has goods.

    GET  /orders         the caller's orders
    GET  /orders/ID      one of them
    POST /orders         {"sku": "apple", "count": 2}
"""
import dataclasses
import http.server
import itertools
import json
import threading


@dataclasses.dataclass
class Request:
    method: str
    path: str
    headers: dict
    body: bytes


@dataclasses.dataclass
class Answer:
    status: int
    body: object
    headers: dict = dataclasses.field(default_factory=dict)


class Refusal(Exception):
    """An answer in the form of RFC 9457, as the gateway gives it."""

    def __init__(self, status, code, detail, **headers):
        super().__init__(detail)
        self.answer = Answer(status, {"status": status, "code": code, "detail": detail},
                             {"Content-Type": "application/problem+json",
                              **{name.replace("_", "-"): value for name, value in headers.items()}})


class Orders:
    """stock(sku) says how many there are, or raises Refusal."""

    def __init__(self, stock):
        self.stock, self.lock, self.ids, self.orders = stock, threading.Lock(), itertools.count(1), {}

    def answer(self, caller, request):
        if request.method == "POST":
            return self.place(caller, request.body)
        name = request.path.removeprefix("/orders").strip("/")
        if name:
            return self.show(caller, name)
        return Answer(200, [order for order in self.orders.values() if order["owner"] == caller])

    def show(self, caller, name):
        order = self.orders.get(int(name)) if name.isdecimal() else None
        if not order or order["owner"] != caller:
            raise Refusal(404, "no_such_order", f"there is no order {name}")
        return Answer(200, order)

    def place(self, caller, body):
        try:
            wish = json.loads(body)
            sku, count = str(wish["sku"]), int(wish["count"])
        except (ValueError, KeyError, TypeError):
            raise Refusal(400, "bad_order", 'expected {"sku": "apple", "count": 2}') from None
        if self.stock(sku) < count:
            raise Refusal(409, "out_of_stock", f"there are not that many of {sku}")
        with self.lock:
            order = {"id": next(self.ids), "owner": caller, "sku": sku, "count": count}
            self.orders[order["id"]] = order
        return Answer(201, order)


def serve(port, service):
    """service(request) gives the Answer, or raises Refusal."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                if self.path.split("/")[1] != "orders":
                    raise Refusal(404, "no_route", "there is nothing here")
                if self.command not in ("GET", "POST"):
                    raise Refusal(405, "method_not_allowed", "GET and POST are", Allow="GET, POST")
                answer = service(Request(self.command, self.path, self.headers, body))
            except Refusal as refusal:
                answer = refusal.answer
            text = json.dumps(answer.body).encode() + b"\n"
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", "Content-Length": len(text), **answer.headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer.request_queue_size = 128
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
