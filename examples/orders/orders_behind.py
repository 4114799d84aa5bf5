"""orders behind the gateway, which says who calls and asks inventory again where that helps (gateway.yaml)."""
import argparse
import json
import urllib.request

import orders

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--port", type=int, default=9111)
arguments.add_argument("--gateway", default="http://127.0.0.1:8080")
options = arguments.parse_args()


def stock(sku):
    request = urllib.request.Request(f"{options.gateway}/stock/{sku}", headers={"Host": "inventory.internal"})
    try:
        # >>> retry
        with urllib.request.urlopen(request, timeout=5) as answer:
            # <<< retry
            return json.load(answer)["left"]
    except (OSError, ValueError, KeyError):
        raise orders.Refusal(503, "no_inventory", "inventory does not answer", Retry_After=1) from None


business = orders.Orders(stock)


def service(request):
    # >>> auth
    caller = request.headers["X-User-Id"]
    # <<< auth
    return business.answer(caller, request)


orders.serve(options.port, service)
