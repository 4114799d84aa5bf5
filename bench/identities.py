"""Who calls, for the modes with authentication: one RSA key, tokens that it has signed, and what verifies them."""

import base64
import json
import multiprocessing
import secrets
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ISSUER = "https://auth.example.com"
AUDIENCE = "orders-api"
KID = "bench-2048"
CROWD = 100_000  # distinct live tokens
FEW = 100        # of them, in the series that measure tokens seen before
LIFETIME_S = 24 * 3600
CORES = 2
FIELDS = ("X-User-Id: user-00000007", "X-User-Scopes: orders:read orders:write", "X-Tenant: tenant-007")  # an Auth Service's


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def token(key, number, now):
    """As an Auth Service makes them (RFC 9068); all of one length."""
    head = base64url(compact({"alg": "RS256", "typ": "at+jwt", "kid": KID}))
    claims = base64url(compact({
        "iss": ISSUER, "sub": f"user-{number:08}", "aud": AUDIENCE, "exp": now + LIFETIME_S, "iat": now,
        "jti": secrets.token_hex(16), "client_id": "shop", "scope": "orders:read orders:write",
        "roles": ["silver", "buyer"], "tenant": f"tenant-{number % 97:03}"}))
    signature = key.sign(head + b"." + claims, padding.PKCS1v15(), hashes.SHA256())
    return (head + b"." + claims + b"." + base64url(signature)).decode()


def sign_part(pem, first, count, now):
    key = serialization.load_pem_private_key(pem, None)
    return [token(key, number, now) for number in range(first, first + count)]


def make(session):
    """Files of one run, made once: {name: path} for templates and loads."""
    paths = {name: session.dir / file for name, file in (
        ("JWKS", "jwks.json"), ("PUBLIC_KEY", "public.pem"), ("TOKENS", "tokens"), ("CROWD_TOKENS", "crowd"))}
    if paths["CROWD_TOKENS"].exists():
        return paths
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    numbers = key.public_key().public_numbers()
    paths["JWKS"].write_text(json.dumps({"keys": [{
        "kty": "RSA", "kid": KID, "alg": "RS256", "use": "sig",
        "n": base64url(numbers.n.to_bytes(256, "big")).decode(), "e": base64url(numbers.e.to_bytes(3, "big")).decode()}]}))
    paths["PUBLIC_KEY"].write_bytes(key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    now = int(time.time())
    part = CROWD // CORES
    with multiprocessing.get_context("fork").Pool(CORES, initializer=use_all_cores) as pool:
        parts = pool.starmap(sign_part, [(pem, core * part, part, now) for core in range(CORES)])
    tokens = [line for lines in parts for line in lines]
    assert len({len(line) for line in tokens}) == 1
    paths["CROWD_TOKENS"].write_text("".join(f"{line}\n" for line in tokens))
    paths["TOKENS"].write_text("".join(f"{line}\n" for line in tokens[:FEW]))
    return paths


def use_all_cores():
    import os
    os.sched_setaffinity(0, range(CORES))
