"""orders on its own: it checks tokens, holds callers to a limit, and asks inventory again where that helps."""
import argparse
import collections
import json
import random
import threading
import time
import urllib.error
import urllib.request

from jwcrypto import jwk, jws, jwt
from jwcrypto.common import JWException

import orders

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--port", type=int, default=9110)
arguments.add_argument("--inventory", default="http://127.0.0.1:9112")
# >>> auth
arguments.add_argument("--issuer", default="http://127.0.0.1:9400")
arguments.add_argument("--audience", default="orders-api")
# <<< auth
options = arguments.parse_args()


# >>> auth
class KeySet:
    """The Auth Service's keys: fetched by one thread for all, every ten minutes, and when a token names a key that is not
    there, but then at most once in ten seconds; the last good ones stay for a day while the service is down."""

    REFRESH_S, COOLDOWN_S, KEEP_S, TIMEOUT_S, BYTES = 600, 10, 86400, 2, 256 * 1024

    def __init__(self, uri):
        self.uri, self.keys, self.lock = uri, {}, threading.Lock()
        self.fetched = self.tried = -float("inf")

    def fetch(self, now):
        self.tried = now
        try:
            with urllib.request.urlopen(self.uri, timeout=self.TIMEOUT_S) as answer:
                found = json.loads(answer.read(self.BYTES))["keys"]
            self.keys = {key["kid"]: jwk.JWK(**key) for key in found if key.get("use", "sig") == "sig"}
            self.fetched = now
        except (OSError, ValueError, KeyError, TypeError, JWException):
            pass

    def find(self, kid):
        with self.lock:
            now = time.monotonic()
            due = kid not in self.keys or now - self.fetched > self.REFRESH_S
            if due and now - self.tried > self.COOLDOWN_S:
                self.fetch(now)
            known = kid in self.keys and now - self.fetched < self.KEEP_S
            if not known and self.tried > self.fetched:
                raise orders.Refusal(503, "auth_unavailable", "no keys to check the token with", Retry_After=1)
            return self.keys.get(kid)


ALGORITHMS = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}   # and the kind of key that each goes with
LEEWAY_S, TOKEN_BYTES = 30, 16 * 1024
keys = KeySet(options.issuer + "/jwks.json")


def unauthorised(code, detail):
    error = "" if code == "no_credentials" else ' error="invalid_token"'
    return orders.Refusal(401, code, detail, WWW_Authenticate="Bearer" + error)


def key_of(text):
    """The key is chosen by us, by name, and goes with one algorithm; never by what else the token says."""
    header = json.loads(jws.base64url_decode(text.split(".")[0]))
    key = keys.find(header.get("kid"))
    if not key or key["kty"] != ALGORITHMS.get(header.get("alg")) or key.get("alg", header["alg"]) != header["alg"]:
        raise ValueError("no key of ours")
    return key


def claims_of(text):
    token = jwt.JWT(algs=list(ALGORITHMS), check_claims={"iss": options.issuer, "aud": options.audience, "exp": None})
    token.leeway = LEEWAY_S
    try:
        if len(text) > TOKEN_BYTES or text.count(".") != 2:
            raise ValueError("no token")
        token.deserialize(text, key_of(text))
        return json.loads(token.claims)
    except jwt.JWTExpired:
        raise unauthorised("expired_token", "the token has expired") from None
    except (ValueError, TypeError, KeyError, AttributeError, JWException):
        raise unauthorised("invalid_token", "the token is not valid") from None


def authenticate(request):
    values = request.headers.get_all("Authorization") or []
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise unauthorised("no_credentials", "a bearer token is needed")
    claims = claims_of(token.strip())
    scope = "orders:write" if request.method == "POST" else "orders:read"
    granted = claims.get("scope", "")
    if scope not in (granted.split() if isinstance(granted, str) else granted):
        raise orders.Refusal(403, "insufficient_scope", f"the scope {scope} is needed",
                             WWW_Authenticate=f'Bearer error="insufficient_scope", scope="{scope}"')
    return claims["sub"]
# <<< auth


# >>> limit
class Limiter:
    """A token bucket for each caller. A bucket that is full again is forgotten. It holds for this process: two of them let
    twice as much through."""

    RATE, BURST, CALLERS = 10, 20, 100_000

    def __init__(self):
        self.lock, self.buckets = threading.Lock(), collections.OrderedDict()   # caller: (tokens, when)

    def forget(self, now):
        while self.buckets:
            caller, (tokens, then) = next(iter(self.buckets.items()))
            if tokens + (now - then) * self.RATE < self.BURST and len(self.buckets) <= self.CALLERS:
                break
            del self.buckets[caller]

    def take(self, caller):
        with self.lock:
            now = time.monotonic()
            self.forget(now)
            tokens, then = self.buckets.get(caller, (self.BURST, now))
            tokens = min(self.BURST, tokens + (now - then) * self.RATE)
            good = tokens >= 1
            self.buckets[caller] = (tokens - good, now)
            self.buckets.move_to_end(caller)
        if not good:
            wait_s = max(1, round((1 - tokens) / self.RATE + 0.5))
            raise orders.Refusal(429, "rate_limited", "too many requests", Retry_After=wait_s)


limiter = Limiter()
# <<< limit


# >>> breaker
class Breaker:
    """Opens when half of at least twenty calls within ten seconds failed, for five seconds; then one call tries."""

    WINDOW_S, CALLS, RATIO, OPEN_S = 10, 20, 0.5, 5

    def __init__(self):
        self.lock, self.calls, self.opened, self.probing = threading.Lock(), collections.deque(), None, False

    def admit(self):
        with self.lock:
            if self.opened is None:
                return True
            if self.probing or time.monotonic() - self.opened < self.OPEN_S:
                return False
            self.probing = True
            return True

    def note(self, good):
        with self.lock:
            now = time.monotonic()
            if self.probing:
                self.probing, self.opened = False, None if good else now
                self.calls.clear()
                return
            self.calls.append((now, good))
            while self.calls[0][0] < now - self.WINDOW_S:
                self.calls.popleft()
            failed = sum(not each for _, each in self.calls)
            if len(self.calls) >= self.CALLS and failed >= self.RATIO * len(self.calls):
                self.opened = now


breaker = Breaker()
# <<< breaker


# >>> retry
class Budget:
    """Retries in flight, at most, as a share of the requests in flight; three always may."""

    SHARE, ALWAYS = 0.2, 3

    def __init__(self):
        self.lock, self.requests, self.retries = threading.Lock(), 0, 0

    def begin(self, is_retry):
        with self.lock:
            if is_retry and self.retries >= max(self.ALWAYS, self.SHARE * self.requests):
                return False
            self.requests += 1
            self.retries += is_retry
            return True

    def end(self, is_retry):
        with self.lock:
            self.requests -= 1
            self.retries -= is_retry


TRIES, BACKOFF_S, TRY_S, WHOLE_S = 3, 0.025, 1, 5
budget = Budget()


def may_help(error):
    """Another try, that is: there was no answer, or it was 503."""
    return not isinstance(error, urllib.error.HTTPError) or error.code == 503


def ask_once(url, timeout_s):
    # >>> breaker
    if not breaker.admit():
        raise OSError("the breaker is open")
    good = False
    try:
        # <<< breaker
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            found = json.load(answer)
        # >>> breaker
        good = True
        return found
    except urllib.error.HTTPError as error:
        good = error.code < 500
        raise
    finally:
        breaker.note(good)
    # <<< breaker


def ask(url):
    deadline = time.monotonic() + WHOLE_S
    for tried in range(TRIES):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not budget.begin(tried > 0):
            break
        try:
            return ask_once(url, min(TRY_S, left_s))
        except (OSError, ValueError) as error:
            if tried + 1 == TRIES or not may_help(error):
                raise
        finally:
            budget.end(tried > 0)
        time.sleep(random.uniform(0, BACKOFF_S * 2 ** tried))
    raise OSError("no time or no budget left")
# <<< retry


def stock(sku):
    try:
        return ask(f"{options.inventory}/stock/{sku}")["left"]
    except (OSError, ValueError, KeyError):
        raise orders.Refusal(503, "no_inventory", "inventory does not answer", Retry_After=1) from None


business = orders.Orders(stock)


def service(request):
    # >>> auth
    caller = authenticate(request)
    # <<< auth
    # >>> limit
    limiter.take(caller)
    # <<< limit
    return business.answer(caller, request)


orders.serve(options.port, service)
