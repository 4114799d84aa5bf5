"""JSON Web Tokens and keys made by hand: every part of a token can be what no library would write. The signatures are
those of python3-cryptography; python3-jwcrypto, another implementation, says that the good ones are good.
"""
import base64
import hashlib
import hmac
import json
import time

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils, x25519

HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
CURVES = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1, "secp256k1": ec.SECP256K1}
OTHERS = {"Ed25519": ed25519.Ed25519PrivateKey, "Ed448": ed448.Ed448PrivateKey, "X25519": x25519.X25519PrivateKey}
ORDERS = {   # n of FIPS 186-5 and SP 800-186, for r and s out of range
    "P-256": 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551,
    "P-384": 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973,
    "P-521": int("01" + 32 * "ff" + "fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16),
}
SIZES = {"P-256": 32, "P-384": 48, "P-521": 66, "secp256k1": 32}   # bytes of a coordinate
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def as_bytes(value):
    """Text as UTF-8, anything that is no bytes as JSON."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))).encode()


def b64(value):
    """Base64url without padding."""
    return base64.urlsafe_b64encode(as_bytes(value)).rstrip(b"=").decode()


def number(value, size=None):
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def with_trailing_bits(part):
    """The same bytes in another spelling: bits that no decoder looks at are set. Only where there are such bits."""
    unused = {2: 4, 3: 2}[len(part) % 4]
    last = ALPHABET.index(part[-1])
    assert last % (1 << unused) == 0
    return part[:-1] + ALPHABET[last | 1]


class Key:
    """A private key. kind: "RSA", a curve, or "oct"; made once by each name that Keys knows."""

    def __init__(self, kind, kid=None, bits=2048, secret=None):
        self.kind, self.kid, self.secret = kind, kid, secret
        if kind == "RSA":
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        elif kind in CURVES:
            self.private = ec.generate_private_key(CURVES[kind]())
        elif kind in OTHERS:
            self.private = OTHERS[kind].generate()
        else:
            assert kind == "oct"

    @property
    def algorithm(self):
        """What it signs with unless told otherwise."""
        return {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "secp256k1": "ES256K",
                "oct": "HS256"}.get(self.kind, "EdDSA")

    def public(self, encoding="PEM", form="SubjectPublicKeyInfo"):
        """Bytes; with a final newline as PEM."""
        return self.private.public_key().public_bytes(getattr(serialization.Encoding, encoding),
                                                      getattr(serialization.PublicFormat, form))

    def pem(self):
        return self.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                          serialization.NoEncryption())

    def jwk(self, **members):
        """Public, but for "oct". members: further ones; None removes one."""
        if self.kind == "oct":
            jwk = {"kty": "oct", "k": b64(self.secret)}
        elif self.kind == "RSA":
            numbers = self.private.public_key().public_numbers()
            jwk = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        elif self.kind in CURVES:
            numbers = self.private.public_key().public_numbers()
            jwk = {"kty": "EC", "crv": self.kind, "x": number(numbers.x, SIZES[self.kind]),
                   "y": number(numbers.y, SIZES[self.kind])}
        else:
            jwk = {"kty": "OKP", "crv": self.kind, "x": b64(self.public("Raw", "Raw"))}
        jwk.update({"kid": self.kid}, **members)
        return {name: value for name, value in jwk.items() if value is not None}

    def numbers(self, message, algorithm="ES256"):
        """r and s of an ECDSA signature."""
        return utils.decode_dss_signature(self.private.sign(message, ec.ECDSA(HASHES[algorithm[2:5]]())))

    def join(self, r, s, size=None):
        """As RFC 7518 3.4 does."""
        size = size or SIZES[self.kind]
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def sign(self, message, algorithm=None, salt=None):
        algorithm = algorithm or self.algorithm
        if algorithm.startswith("HS"):
            return mac(self.secret, message, algorithm)
        if algorithm == "EdDSA":
            return self.private.sign(message)
        if algorithm.startswith("ES"):
            return self.join(*self.numbers(message, algorithm))
        digest = HASHES[algorithm[2:]]()
        if algorithm.startswith("PS"):
            how = padding.PSS(padding.MGF1(digest), digest.digest_size if salt is None else salt)
        else:
            how = padding.PKCS1v15()
        return self.private.sign(message, how, digest)


def mac(secret, message, algorithm="HS256"):
    return hmac.new(as_bytes(secret), message, getattr(hashlib, f"sha{algorithm[2:]}")).digest()


def jwks(*keys):
    """Text of a set: of Keys, or of JWKs."""
    return json.dumps({"keys": [key.jwk() if isinstance(key, Key) else key for key in keys]})


def header_of(key, algorithm=None, **members):
    """A JOSE header; None removes a member."""
    header = {"alg": algorithm or key.algorithm, "typ": "JWT", "kid": key.kid, **members}
    return {name: value for name, value in header.items() if value is not None}


def assemble(header, payload, sign):
    """header, payload: bytes, text or what is written as JSON. sign: a function of the signing input to bytes, or the
    bytes themselves."""
    signing = f"{b64(header)}.{b64(payload)}"
    return f"{signing}.{b64(sign(signing.encode()) if callable(sign) else sign)}"


def token(key, claims, algorithm=None, signed_as=None, header=None, **members):
    """Signed by key. algorithm: what the header says; signed_as: what is done, if that is something else; header: the
    whole of it, in any form; members: of the header."""
    return assemble(header_of(key, algorithm, **members) if header is None else header, claims,
                    lambda message: key.sign(message, signed_as or algorithm))


def claims(issuer, audience="orders-api", lifetime=600, **members):
    """Those of a good token; None removes one."""
    now = int(time.time())
    good = {"iss": issuer, "aud": audience, "sub": "ann", "iat": now, "exp": now + lifetime, **members}
    return {name: value for name, value in good.items() if value is not None}
