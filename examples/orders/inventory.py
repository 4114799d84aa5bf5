"""inventory, the second service: GET /stock/SKU says how many there are. --flaky N: each Nth question is answered 503."""
import argparse
import http.server
import itertools
import json

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--port", type=int, default=9112)
arguments.add_argument("--flaky", type=int, default=0)
options = arguments.parse_args()
GOODS, questions = {"apple": 100, "pear": 3}, itertools.count(1)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        flaky = options.flaky and next(questions) % options.flaky == 0
        sku = self.path.rpartition("/")[2]
        text = json.dumps({"sku": sku, "left": GOODS.get(sku, 0)}).encode()
        self.send_response(503 if flaky else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
