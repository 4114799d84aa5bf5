"""Good tokens and hostile ones by name, and the keys they are signed with: the tables of test_28_tokens.py.

Each row makes its token when it is asked for, since what is good is good for ten minutes.
"""
import functools
import itertools
import json
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

import tokens
from auth_wire import ISSUER
from tokens import ORDERS, Key, assemble, b64, claims, header_of, mac, token, with_trailing_bits

PUBLIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
SECRET = b"sixty-four bytes of a secret that nobody else in the world knows"
TOKEN_BYTES = 16 * 1024
KINDS = {"rsa": "RSA", "other": "RSA", "pss": "RSA", "attacker": "RSA", "p256": "P-256", "other256": "P-256",
         "attacker256": "P-256", "p384": "P-384", "p521": "P-521", "ed": "Ed25519", "attacker_ed": "Ed25519",
         "k1": "secp256k1", "ed448": "Ed448", "x25519": "X25519"}


@functools.cache
def key(name):
    if name == "small":
        return Key("RSA", "small", bits=1024)
    if name == "secret":
        return Key("oct", None, secret=SECRET)
    if name.startswith("nameless"):
        return Key("P-256")
    return Key(KINDS[name], name)


# Keys that a set may hold and that verify nothing here (RFC 7517 5): name → its JWK.
def off_curve():
    good = key("attacker256").jwk(kid="off_curve")
    return {**good, "y": good["x"]}


IGNORED = {
    "enc": lambda: key("attacker").jwk(kid="enc", use="enc"),
    "use_number": lambda: key("attacker").jwk(kid="use_number", use=1),
    "small": lambda: key("small").jwk(),
    "alg_of_another_kind": lambda: key("attacker").jwk(kid="alg_of_another_kind", alg="ES256"),
    "alg_unknown": lambda: key("attacker").jwk(kid="alg_unknown", alg="RS1"),
    "alg_hmac": lambda: key("attacker").jwk(kid="alg_hmac", alg="HS256"),
    "alg_none": lambda: key("attacker").jwk(kid="alg_none", alg="none"),
    "only_signs": lambda: key("attacker").jwk(kid="only_signs", key_ops=["sign"]),
    "encrypts": lambda: key("attacker").jwk(kid="encrypts", key_ops=["encrypt", "wrapKey"]),
    "kid_number": lambda: key("attacker").jwk(kid=7),
    "even_exponent": lambda: key("attacker").jwk(kid="even_exponent", e=b64(b"\x02")),
    "exponent_one": lambda: key("attacker").jwk(kid="exponent_one", e=b64(b"\x01")),
    "no_modulus": lambda: key("attacker").jwk(kid="no_modulus", n=None),
    "padded": lambda: key("attacker").jwk(kid="padded", n=key("attacker").jwk()["n"] + "=="),
    "k1": lambda: key("k1").jwk(),
    "k1_as_p256": lambda: key("k1").jwk(kid="k1_as_p256", crv="P-256"),
    "p256_as_p384": lambda: key("attacker256").jwk(kid="p256_as_p384", crv="P-384"),
    "off_curve": off_curve,
    "ed448": lambda: key("ed448").jwk(),
    "x25519": lambda: key("x25519").jwk(),
    "small_order": lambda: {"kty": "OKP", "crv": "Ed25519", "kid": "small_order", "x": b64(b"\x01" + 31 * b"\0")},
    "kty_unknown": lambda: key("attacker").jwk(kid="kty_unknown", kty="AKP"),
    "kty_number": lambda: key("attacker").jwk(kid="kty_number", kty=3),
}
USED = ["rsa", "other", "p256", "other256", "p384", "p521", "ed"]


# ---- the good ones ----

def good(name="rsa", algorithm=None, **members):
    return token(key(name), claims(ISSUER, **members), algorithm)


def headed(name="rsa", algorithm=None, signed_as=None, **members):
    """Good claims, and a header with these members."""
    return token(key(name), claims(ISSUER), algorithm, signed_as, **members)


def exactly(size, name="ed"):
    """A token of so many bytes."""
    room = (size - len(good(name, pad=""))) * 3 // 4
    made = (token(key(name), claims(ISSUER, pad="x" * n), pad="x" * m) for n in range(room - 30, room) for m in range(4))
    return next(each for each in made if len(each) == size)


def mirrored(name="p256"):
    """(r, n - s) is as good as (r, s): ECDSA has two forms of each signature, and RFC 7518 takes both."""
    kind = key(name).kind
    r, s = key(name).numbers(signing_input(name))
    return with_signature(name, key(name).join(r, ORDERS[kind] - s))


GOOD = {
    **{f"{algorithm} by {name}": functools.partial(good, name, algorithm)
       for name, algorithms in (("rsa", PUBLIC[:6]), ("pss", ["PS256"]), ("p256", ["ES256"]), ("p384", ["ES384"]),
                                ("p521", ["ES512"]), ("ed", ["EdDSA"])) for algorithm in algorithms},
    "the second of a kind": lambda: good("other256"),
    "no kid, several keys": lambda: headed("other", kid=None),
    "no kid, one key": lambda: headed("p384", kid=None),
    "no typ": lambda: headed(typ=None),
    "typ at+jwt": lambda: headed(typ="at+jwt"),
    "typ in full": lambda: headed(typ="application/at+jwt"),
    "typ in lower case": lambda: headed(typ="jwt"),
    "header members that say nothing": lambda: headed(cty="JWT", x5t="abc", kind=7, nested={"alg": "none"}),
    "white space in the JSON": lambda: token(key("rsa"), json.dumps(claims(ISSUER), indent=4),
                                             header=json.dumps(header_of(key("rsa")), indent=2) + "\n"),
    "escapes in the JSON": lambda: token(key("rsa"), claims(ISSUER), header=json.dumps(header_of(key("rsa"))).replace(
        '"alg"', '"\\u0061l\\u0067"').replace("RS256", "\\u0052S256")),
    "aud is a list": lambda: good(aud=["x", "stock-api"]),
    "aud is the only one of a list": lambda: good(aud=["orders-api"]),
    "exp is a fraction": lambda: good(exp=claims(ISSUER)["exp"] + 0.5),
    "exp with an exponent": lambda: token(key("rsa"), json.dumps(claims(ISSUER, exp=0)).replace('"exp": 0', '"exp": 9e12')),
    "exp just over, within the leeway": lambda: good(lifetime=-10),
    "nbf just ahead, within the leeway": lambda: good(nbf=claims(ISSUER)["iat"] + 10),
    "iat ahead": lambda: good(iat=claims(ISSUER)["iat"] + 600),
    "unicode": lambda: good(sub="ännchen \U0001f600"),
    "the other form of an ECDSA signature": mirrored,
    "sixteen levels deep": lambda: good(deep=functools.reduce(lambda inner, _: [inner], range(14), 1)),
    "a token of 16 KiB": lambda: exactly(TOKEN_BYTES),
    "jti and many claims": lambda: good(jti="j", **{f"c{i}": i for i in range(500)}),
}


# ---- the hostile ones: name → token, or (token, code) ----

def signing_input(name, algorithm=None, payload=None, **members):
    return f"{b64(header_of(key(name), algorithm, **members))}.{b64(payload or frozen(name))}".encode()


@functools.cache
def frozen(name):
    """The same claims each time, for what is signed in two steps."""
    return claims(ISSUER)


def with_signature(name, signature, algorithm=None, **members):
    return f"{signing_input(name, algorithm, **members).decode()}.{b64(signature)}"


def parts(name="rsa", **members):
    return good(name, **members).split(".")


def raw_claims(text, name="ed"):
    """A payload of this text, signed as it should be. A good one's members stand for %s."""
    inner = json.dumps(claims(ISSUER))[1:-1]
    return token(key(name), text.replace(b"%s", inner.encode()) if isinstance(text, bytes) else text.replace("%s", inner))


def raw_header(text, name="ed"):
    inner = json.dumps(header_of(key(name)))[1:-1]
    text = text.replace(b"%s", inner.encode()) if isinstance(text, bytes) else text.replace("%s", inner)
    return token(key(name), claims(ISSUER), header=text)


def hmac_with(secret, name, algorithm):
    """Signed with what everybody knows."""
    return assemble(header_of(key(name), algorithm), claims(ISSUER), lambda message: mac(secret, message, algorithm))


def changed(made, part, change):
    pieces = made.split(".")
    pieces[part] = change(pieces[part])
    return ".".join(pieces)


def until_has(make, part, characters):
    """A token whose part has one of the characters."""
    return next(made for made in (make(str(i)) for i in itertools.count()) if set(made.split(".")[part]) & set(characters))


def unsigned(algorithm):
    header = {"typ": "JWT", **({} if algorithm is ... else {"alg": algorithm})}
    return {
        f"alg {algorithm!r}, empty signature": lambda: assemble(header, claims(ISSUER), b""),
        f"alg {algorithm!r}, a signature": lambda: assemble({**header, "kid": "rsa"}, claims(ISSUER), b"x" * 256),
        f"alg {algorithm!r}, well signed": lambda: token(key("rsa"), claims(ISSUER), header={**header, "kid": "rsa"}),
    }


def algorithms():
    spelt = ["".join(letters) for letters in itertools.product(*zip("none", "NONE"))]   # all 16
    others = ["none ", " none", "nonе", "none\0", "", None, 0, True, [], ["none"], {}, ..., "rs256", "RS256 ", "RS-256",
              "RS257", "RS1", "ES256K", "HS1", "SHA256withRSA", "EDDSA", "Ed25519", "Ed448", "dir", "RSA-OAEP", "A128KW",
              "RS256\0", ["RS256"], {"RS256": "RS256"}, "RS256,none", "*"]
    return {name: make for each in spelt + others for name, make in unsigned(each).items()}


PUBLIC_FORMS = {
    "PEM": lambda it: it.public(), "PEM without its last line break": lambda it: it.public().strip(),
    "PEM with CRLF": lambda it: it.public().replace(b"\n", b"\r\n"), "DER": lambda it: it.public("DER"),
    "JWK": lambda it: json.dumps(it.jwk()), "JWK, the short way": lambda it: json.dumps(it.jwk(), separators=(",", ":")),
    "the number as text": lambda it: it.jwk().get("n") or it.jwk()["x"],
    "the number": lambda it: tokens.base64.urlsafe_b64decode((it.jwk().get("n") or it.jwk()["x"]) + "=="),
    "nothing": lambda it: b"", "its kid": lambda it: it.kid,
}


def confusion():
    rows = {f"{algorithm} with {form} of {name}": functools.partial(
        lambda form, name, algorithm: hmac_with(PUBLIC_FORMS[form](key(name)), name, algorithm), form, name, algorithm)
        for form in PUBLIC_FORMS for name in ("rsa", "p256", "ed") for algorithm in ("HS256", "HS384", "HS512")}
    rows["HS256 with PKCS1 PEM of rsa"] = lambda: hmac_with(key("rsa").public(form="PKCS1"), "rsa", "HS256")
    rows["HS256 with PKCS1 DER of rsa"] = lambda: hmac_with(key("rsa").public("DER", "PKCS1"), "rsa", "HS256")
    rows["HS256 with the secret of another provider"] = lambda: hmac_with(SECRET, "rsa", "HS256")
    return rows


def sha1_of(message):
    return key("rsa").private.sign(message, padding.PKCS1v15(), hashes.SHA1())


def keys_confused():
    return {
        "RS256 signed as PS256": lambda: headed(algorithm="RS256", signed_as="PS256"),
        "PS256 signed as RS256": lambda: headed(algorithm="PS256", signed_as="RS256"),
        "RS256 signed as RS384": lambda: headed(algorithm="RS256", signed_as="RS384"),
        "RS512 signed as RS256": lambda: headed(algorithm="RS512", signed_as="RS256"),
        "RS256 signed with SHA-1": lambda: assemble(header_of(key("rsa")), claims(ISSUER), sha1_of),
        "RS256 by a key for PS256": lambda: headed("pss", "RS256"),
        "PS384 by a key for PS256": lambda: headed("pss", "PS384"),
        "ES256 by a P-384 key": lambda: headed("p384", "ES256"),
        "ES384 by a P-256 key": lambda: headed("p256", "ES384"),
        "ES512 by a P-256 key": lambda: headed("p256", "ES512"),
        "ES256 by a P-521 key": lambda: headed("p521", "ES256"),
        "kid of another key": lambda: headed(kid="other"),
        "kid of another key of a curve": lambda: headed("p256", kid="other256"),
        "kid of another kind": lambda: headed(kid="p256"),
        "kid of another kind, the other way": lambda: headed("p256", kid="rsa"),
        "kid of an Ed25519 key": lambda: headed("p256", kid="ed"),
        "kid of an unknown key": lambda: headed(kid="unknown"),
        "unknown key, kid of a known one": lambda: headed("attacker", kid="rsa"),
        "unknown key": lambda: headed("attacker"),
        "unknown key, no kid": lambda: headed("attacker", kid=None),
        "unknown EC key, no kid": lambda: headed("attacker256", kid=None),
        "unknown EC key, kid of a known one": lambda: headed("attacker256", kid="p256"),
        "unknown Ed25519 key, kid of a known one": lambda: headed("attacker_ed", kid="ed"),
        "PSS without salt": lambda: assemble(header_of(key("rsa"), "PS256"), claims(ISSUER),
                                             lambda message: key("rsa").sign(message, "PS256", salt=0)),
        "PSS with a salt too long": lambda: assemble(header_of(key("rsa"), "PS256"), claims(ISSUER),
                                                     lambda message: key("rsa").sign(message, "PS256", salt=64)),
    }


def ignored():
    def signed(name):
        signer = {"small": "small", "k1": "k1", "k1_as_p256": "k1", "p256_as_p384": "attacker256",
                  "off_curve": "attacker256", "ed448": "ed448", "x25519": "attacker_ed",
                  "small_order": "attacker_ed"}.get(name, "attacker")
        if name == "small_order":   # of this key some signatures fit every message: R = A = the neutral element, S = 0
            return assemble(header_of(key("ed"), kid=name), claims(ISSUER), b"\x01" + 63 * b"\0")
        algorithm = {"k1": "ES256", "k1_as_p256": "ES256", "p256_as_p384": "ES384"}.get(name)
        return token(key(signer), claims(ISSUER), algorithm, "ES256" if signer == "k1" else None,
                     kid=7 if name == "kid_number" else name)
    return {f"a key that is not to be used: {name}": functools.partial(signed, name) for name in IGNORED}


KIDS = {
    "a path": "../../../../dev/null", "a path that is there": "/etc/hostname", "a URL": "http://127.0.0.1:1/rsa",
    "SQL": "x' UNION SELECT 'secret' --", "a command": "rsa; touch /tmp/x", "with NUL": "rsa\0", "NUL first": "\0rsa",
    "with a space": "rsa ", "in another case": "RSA", "empty": "", "too long": "k" * 257, "huge": "k" * 10000,
    "a number": 1, "null": None, "a list": ["rsa"], "an object": {"kid": "rsa"}, "true": True, "full width": "ｒsa",
    "with a line break": "rsa\r\nX-User-Id: root", "a format": "%s%n%n%n", "a template": "${jndi:ldap://127.0.0.1/a}",
    "percent": "rs%61",
}


def kids():
    return {f"kid {name}": functools.partial(
        lambda kid: token(key("rsa"), claims(ISSUER), header={"alg": "RS256", "kid": kid}), kid)
        for name, kid in KIDS.items()}


def header_asks_for_more():
    own = lambda **members: headed("attacker", **members)   # noqa: E731
    certificate = b64(b"0\x82\x01\x00")
    return {
        "crit exp": lambda: headed(crit=["exp"]),
        "crit unknown": lambda: headed(crit=["x"], x=1),
        "crit unknown and not there": lambda: headed(crit=["x"]),
        "crit empty": lambda: headed(crit=[]),
        "crit no list": lambda: headed(crit="exp"),
        "crit null": lambda: token(key("rsa"), claims(ISSUER), header={**header_of(key("rsa")), "crit": None}),
        "crit alg": lambda: headed(crit=["alg"]),
        "crit b64": lambda: headed(crit=["b64"], b64=True),
        "b64 false": lambda: headed(crit=["b64"], b64=False),
        "b64 false without crit": lambda: headed(b64=False),
        "b64 false, payload as it is": lambda: unencoded_payload(),
        "jwk": lambda: own(jwk=key("attacker").jwk(kid=None)),
        "jwk and a known kid": lambda: own(jwk=key("attacker").jwk(kid="rsa"), kid="rsa"),
        "jwk of the known key": lambda: headed(jwk=key("rsa").jwk()),
        "jwk, no kid": lambda: own(jwk=key("attacker").jwk(kid=None), kid=None),
        "jku": lambda: own(jku="http://127.0.0.1:1/jwks.json"),
        "jku and a good signature": lambda: headed(jku="https://auth.example.com/jwks.json"),
        "x5u": lambda: own(x5u="http://127.0.0.1:1/chain.pem"),
        "x5c": lambda: own(x5c=[certificate]),
        "x5c and a known kid": lambda: own(x5c=[certificate], kid="rsa"),
        "x5c and a good signature": lambda: headed(x5c=[certificate]),
        **{f"typ {name!r}": functools.partial(lambda typ: headed(typ=typ), name) for name in (
            "logout+jwt", "dpop+jwt", "secevent+jwt", "application/logout+jwt", "JOSE", "JWE", "", "JWT ", "kb+jwt", 7, ["JWT"],
            "oauth-authz-req+jwt", "token-introspection+jwt", "application/", "at+jwt\0", "xJWT")},
        "typ null": lambda: token(key("rsa"), claims(ISSUER), header={**header_of(key("rsa")), "typ": None}),
    }


def unencoded_payload():
    """RFC 7797: signed over the payload itself."""
    header = b64(header_of(key("rsa"), crit=["b64"], b64=False))
    payload = json.dumps(claims(ISSUER), separators=(",", ":")).replace(ISSUER, "i").replace(".", "")
    return f"{header}.{payload}.{b64(key('rsa').sign(f'{header}.{payload}'.encode()))}"


BAD_JSON = {   # %s: the members of a good one
    "empty": "", "white space": " ", "null": "null", "a list": "[{%s}]", "a string": '"{}"', "a number": "1", "no object": "%s",
    "not closed": "{%s", "closed twice": "{%s}}", "two": "{%s}{%s}", "text behind": "{%s}x", "NUL behind": "{%s}\0",
    "a byte order mark": "\ufeff{%s}", "a comma too many": "{%s,}", "a comment": "{%s/* */}", "a line comment": "{%s}//",
    "single quotes": "{%s,'a':1}", "no quotes": "{%s,a:1}", "NaN": '{%s,"a":NaN}', "Infinity": '{%s,"a":Infinity}',
    "a leading zero": '{%s,"a":01}', "a plus": '{%s,"a":+1}', "hexadecimal": '{%s,"a":0x1}', "a lonely dot": '{%s,"a":1.}',
    "half an exponent": '{%s,"a":1e}', "True": '{%s,"a":True}', "a control character": '{%s,"a":"\x01"}',
    "a line break in a string": '{%s,"a":"\n"}', "a tab in a string": '{%s,"a":"\t"}', "DEL is none, but NUL": '{%s,"a":"\0"}',
    "a bad escape": '{%s,"a":"\\x41"}', "half an escape": '{%s,"a":"\\u00"}', "a string without end": '{%s,"a":"',
    "a high surrogate alone": '{%s,"a":"\\ud800"}', "a low surrogate alone": '{%s,"a":"\\udc00"}',
    "surrogates the wrong way": '{%s,"a":"\\udc00\\ud800"}', "a surrogate as a name": '{%s,"\\ud800":1}',
    "bytes that are no UTF-8": b'{%s,"a":"\xff"}', "an overlong form": b'{%s,"a":"\xc0\xaf"}',
    "UTF-8 of a surrogate": b'{%s,"a":"\xed\xa0\x80"}', "above U+10FFFF": b'{%s,"a":"\xf4\x90\x80\x80"}',
    "half a character": b'{%s,"a":"\xe2\x82"}', "UTF-16": "{%s}", "a member twice": '{"a":1,%s,"a":1}',
    "a member twice by escape": '{%s,"a":1,"\\u0061":2}', "a member twice inside": '{%s,"a":{"b":1,"b":1}}',
    "deep": '{%s,"a":' + 16 * "[" + 16 * "]" + "}", "very deep": '{%s,"a":' + 5000 * "[" + 5000 * "]" + "}",
    "very deep objects": '{%s,"a":' + 900 * '{"a":' + "1" + 900 * "}" + "}", "very deep, not closed": '{%s,"a":' + 9000 * "[",
    "white space of another kind": "{%s,\u00a0\"a\":1}", "a vertical tab": '{%s,\v"a":1}',
}


def bad_json():
    rows = {}
    for name, text in BAD_JSON.items():
        def encoded(text=text, name=name, raw=raw_claims):
            if name == "UTF-16":
                inner = claims(ISSUER) if raw is raw_claims else header_of(key("ed"))
                return raw(json.dumps(inner).encode("utf-16"))
            return raw(text)
        rows[f"claims: {name}"] = encoded
        if len(text) < 4000:
            rows[f"header: {name}"] = functools.partial(encoded, raw=raw_header)
    good_alg = '"alg":"EdDSA"'
    for name, text in {
            "alg twice": f'{{{good_alg},"kid":"ed",{good_alg}}}', "alg and none": f'{{{good_alg},"alg":"none","kid":"ed"}}',
            "none and alg": f'{{"alg":"none",{good_alg},"kid":"ed"}}', "kid twice": f'{{{good_alg},"kid":"x","kid":"ed"}}',
            "alg by escape": f'{{{good_alg},"\\u0061lg":"none","kid":"ed"}}'}.items():
        rows[f"header: {name}"] = functools.partial(raw_header, text)
    for name in ("sub", "exp", "iss", "aud"):
        for where in ('{"%n":%v,%s}', '{%s,"%n":%v}'):
            value = json.dumps(claims(ISSUER)[name])
            text = where.replace("%n", name).replace("%v", value)
            rows[f"claims: {name} twice, {'before' if where.startswith('{%s') else 'behind'}"] = functools.partial(
                raw_claims, text)
    return rows


def encodings():
    rows = {}
    for part, where in enumerate(("header", "claims", "signature")):
        def row(name, change, part=part, where=where, make=good):
            rows[f"{where} {name}"] = lambda: changed(make("rsa"), part, change)
        row("padded", lambda text: text + "=" * (-len(text) % 4 or 1))
        row("with too much padding", lambda text: text + "====")
        row("with %3D", lambda text: text + "%3D")
        row("with a space", lambda text: text[:8] + " " + text[8:])
        row("with a tab", lambda text: text[:8] + "\t" + text[8:])
        row("with a line break by escape", lambda text: text[:8] + "%0A" + text[8:])
        row("with a comma", lambda text: text[:8] + "," + text[8:])
        row("with a bad character", lambda text: text[:8] + "*" + text[9:])
        row("one character short", lambda text: text[:-1])
        row("one character more", lambda text: text + "A")
        row("four characters more", lambda text: text + "AAAA")
        row("empty", lambda text: "")
        row("a single character", lambda text: "A")
        row("in upper case", str.upper)
        row("with a byte of Latin-1", lambda text: text[:8] + "\xe9" + text[9:])
        rows[f"{where} in the common alphabet"] = functools.partial(
            lambda part: changed(until_has(lambda i: token(key("rsa"), claims(ISSUER, jti=i + "ÿ>?~ÿÿ"), x=i + "?>~ÿ"), part, "-_"),
                                 part, lambda text: text.replace("-", "+").replace("_", "/")), part)
        rows[f"{where} with bits at its end"] = functools.partial(
            lambda part: changed(next(made for made in (
                token(key("rsa"), claims(ISSUER, pad=i * "x"), pad=i * "x") for i in range(9))
                if len(made.split(".")[part]) % 4), part, with_trailing_bits), part)
    return rows


def structure():
    jwe = ".".join([b64({"alg": "dir", "enc": "A128GCM"}), "", b64("iv-of-twelve"), b64("text"), b64("a tag of 16 byte")])
    return {
        "one part": lambda: parts()[0],
        "a word": lambda: "admin",
        "two parts": lambda: ".".join(parts()[:2]),
        "four parts": lambda: good() + ".e30",
        "four parts, the last empty": lambda: good() + ".",
        "five parts": lambda: good() + ".e30.e30",
        "an empty part first": lambda: "." + good(),
        "two tokens": lambda: good() + "." + good(),
        "three empty parts": lambda: "..", "dots": lambda: "....", "many dots": lambda: "." * 9000, "one dot": lambda: ".",
        "a JWE": lambda: jwe,
        "a JWE with a good key's kid": lambda: ".".join(
            [b64({"alg": "RSA-OAEP", "enc": "A128GCM", "kid": "rsa"}), b64("k" * 256), b64("i" * 12), b64("text"), b64("t" * 16)]),
        "the JSON form": lambda: json.dumps({"protected": parts()[0], "payload": parts()[1], "signature": parts()[2]}),
        "in quotes": lambda: f'"{good()}"',
        "with token=": lambda: "token=" + good(),
        "dots by escape": lambda: good().replace(".", "%2E"),
        "parts in another order": lambda: ".".join([*parts()[1:], parts()[0]]),
        "another token's claims": lambda: ".".join([parts()[0], parts(sub="root")[1], parts()[2]]),
        "another token's header": lambda: ".".join([parts("other")[0], *parts()[1:]]),
        "another token's signature": lambda: ".".join([*parts()[:2], parts(sub="root")[2]]),
        "a token inside": lambda: token(key("rsa"), good(), cty="JWT"),
        "16 KiB and a byte": lambda: exactly(TOKEN_BYTES + 1),
        "16 KiB and four bytes": lambda: exactly(TOKEN_BYTES + 4),
        "24 KiB": lambda: exactly(24 * 1024),
        "24 KiB of nothing": lambda: "A" * 24 * 1024,
    }


def ecdsa():
    rows = {}
    for name, kind in (("p256", "P-256"), ("p384", "P-384"), ("p521", "P-521")):
        size, n = tokens.SIZES[kind], ORDERS[kind]
        algorithm = {"p256": "ES256", "p384": "ES384", "p521": "ES512"}[name]

        def rs(name=name, algorithm=algorithm):
            return key(name).numbers(signing_input(name), algorithm)

        def row(what, change, name=name, rs=rs, algorithm=algorithm):
            rows[f"{algorithm}, {what}"] = lambda: with_signature(name, change(key(name), *rs()))
        row("r = 0", lambda it, r, s: it.join(0, s))
        row("s = 0", lambda it, r, s: it.join(r, 0))
        row("r = s = 0", lambda it, r, s: it.join(0, 0))
        row("r = n", lambda it, r, s, n=n: it.join(n, s))
        row("s = n", lambda it, r, s, n=n: it.join(r, n))
        row("r = s = n", lambda it, r, s, n=n: it.join(n, n))
        row("r = 0, s = n", lambda it, r, s, n=n: it.join(0, n))
        row("r > n", lambda it, r, s, n=n: it.join(n + 1, s))
        row("s > n", lambda it, r, s, n=n: it.join(r, n + 1))
        row("r and s all ones", lambda it, r, s, size=size: b"\xff" * 2 * size)
        row("r = s = 1", lambda it, r, s: it.join(1, 1))
        row("r and s the other way", lambda it, r, s: it.join(s, r))
        row("r and s with a zero more", lambda it, r, s, size=size: it.join(r, s, size + 1))
        row("one byte short", lambda it, r, s: it.join(r, s)[:-1])
        row("one byte more", lambda it, r, s: it.join(r, s) + b"\0")
        row("one byte more before", lambda it, r, s: b"\0" + it.join(r, s))
        row("half", lambda it, r, s: it.join(r, s)[:len(it.join(r, s)) // 2])
        row("twice", lambda it, r, s: it.join(r, s) * 2)
        row("in DER", lambda it, r, s: tokens.utils.encode_dss_signature(r, s))
        row("of another length", lambda it, r, s, size=size: b"\x01" * (2 * (48 if size == 32 else 32)))
        row("nothing", lambda it, r, s: b"")
    # s + n is the same number, and fits into the bytes where n is short of a power of 256.
    rows["ES512, s + n"] = lambda: (lambda r, s: with_signature("p521", key("p521").join(r, s + ORDERS["P-521"])))(
        *key("p521").numbers(signing_input("p521"), "ES512"))
    return rows


def other_signatures():
    def rsa(change):
        return lambda: with_signature("rsa", change(key("rsa").sign(signing_input("rsa"))))

    def ed(change):
        return lambda: with_signature("ed", change(key("ed").sign(signing_input("ed"))))
    order = 2**252 + 27742317777372353535851937790883648493
    modulus = lambda: key("rsa").private.public_key().public_numbers().n   # noqa: E731
    return {
        "RS256, zeros": rsa(lambda it: b"\0" * 256), "RS256, one": rsa(lambda it: b"\0" * 255 + b"\1"),
        "RS256, ones": rsa(lambda it: b"\xff" * 256), "RS256, n": rsa(lambda it: modulus().to_bytes(256, "big")),
        "RS256, n - 1": rsa(lambda it: (modulus() - 1).to_bytes(256, "big")),
        "RS256, a zero before": rsa(lambda it: b"\0" + it),
        "RS256, short": rsa(lambda it: it[:-1]), "RS256, half": rsa(lambda it: it[:128]), "RS256, twice": rsa(lambda it: it * 2),
        "RS256, + n": rsa(lambda it: (int.from_bytes(it, "big") + modulus()).to_bytes(257, "big")),
        "RS256, a bit": rsa(lambda it: it[:-1] + bytes([it[-1] ^ 1])), "RS256, the first bit": rsa(
            lambda it: bytes([it[0] ^ 1]) + it[1:]),
        "RS256, backwards": rsa(lambda it: it[::-1]),
        "EdDSA, zeros": ed(lambda it: b"\0" * 64), "EdDSA, short": ed(lambda it: it[:-1]), "EdDSA, long": ed(lambda it: it + b"\0"),
        "EdDSA, half": ed(lambda it: it[:32]), "EdDSA, empty": ed(lambda it: b""),
        "EdDSA, S + L": ed(lambda it: it[:32] + (int.from_bytes(it[32:], "little") + order).to_bytes(32, "little")),
        "EdDSA, S = L": ed(lambda it: it[:32] + order.to_bytes(32, "little")),
        "EdDSA, S = 0": ed(lambda it: it[:32] + b"\0" * 32),
        "EdDSA, R of small order": ed(lambda it: b"\x01" + b"\0" * 31 + it[32:]),
        "EdDSA, a bit": ed(lambda it: it[:-1] + bytes([it[-1] ^ 1])), "EdDSA, halves the other way": ed(lambda it: it[32:] + it[:32]),
        "EdDSA, over a hash": lambda: assemble(header_of(key("ed")), claims(ISSUER),
                                               lambda message: key("ed").sign(tokens.hashlib.sha512(message).digest())),
    }


class Now:
    """So many seconds from when the token is made: the rows' names say this, and not the time."""

    def __init__(self, offset, form=lambda seconds: seconds):
        self.offset, self.form = offset, form

    def __repr__(self):
        return f"now{self.offset:+}"

    @staticmethod
    def resolve(value):
        if isinstance(value, list):
            return [Now.resolve(each) for each in value]
        return value.form(int(time.time()) + value.offset) if isinstance(value, Now) else value


def wrong_claims():
    rows = {}

    def row(claim, values, code="invalid_token"):
        for value in values:
            rows[f"{claim} {value!r:.60}"] = functools.partial(
                lambda claim, value, code: (good("ed", **{claim: Now.resolve(value)}), code), claim, value, code)
    row("exp", ["tomorrow", "", [], [Now(600)], {}, True, False, 10**400, 10**30, -10**30])
    rows["exp as text"] = lambda: good("ed", exp=Now.resolve(Now(600, str)))
    row("exp", [0, -1, 1, Now(-31), Now(-86400), Now(-3600.5), 0.0, -0.0], "expired_token")
    row("nbf", ["now", True, [], {}, 10**30])
    row("nbf", [Now(3600), 2**53])
    row("iat", ["now", True, [Now(0)], {}, 10**30])
    row("iss", ["", "https://auth.example.org", ISSUER + "/", ISSUER[:-1], ISSUER + ".evil.example", "x" + ISSUER, ISSUER + "\0",
                ISSUER.upper(), ISSUER + " ", " " + ISSUER, ISSUER.replace("https", "http"), ISSUER + "?", ISSUER + "#", 7, True,
                [], [ISSUER], [ISSUER, "x"], {"iss": ISSUER}, ISSUER.replace("e", "е", 1)])
    row("aud", ["", "orders", "orders-api ", "orders-apis", "Orders-API", "orders-api,stock-api", "orders-api stock-api",
                "orders-api\0", 7, True, {}, {"aud": "orders-api"}, [], [""], ["x", "y"], [["orders-api"]], [{}], [None],
                ["orders-api", 7], [7, "orders-api"], ["orders-api", ["x"]], ["orders-api", None]])
    row("sub", [7, True, ["ann"], {}])
    row("jti", [7, False, ["x"], {}])
    for claim in ("exp", "iss", "aud"):
        rows[f"no {claim}"] = functools.partial(lambda claim: good("ed", **{claim: None}), claim)
        rows[f"{claim} null"] = functools.partial(
            lambda claim: token(key("ed"), {**claims(ISSUER), claim: None}), claim)
    for claim in ("nbf", "iat", "sub", "jti"):
        rows[f"{claim} null"] = functools.partial(
            lambda claim: token(key("ed"), {**claims(ISSUER), claim: None}), claim)
    for text in ("1e400", "1e30", "9007199254740993", "18446744073709551617", "-1e400"):
        rows[f"exp {text} as it is"] = functools.partial(
            lambda text: raw_claims(json.dumps(claims(ISSUER, exp="@")).replace('"@"', text)), text)
    rows["exp in capitals"] = lambda: good("ed", exp=None, EXP=Now.resolve(Now(600)))
    rows["claims in an envelope"] = lambda: token(key("ed"), {"claims": claims(ISSUER)})
    rows["expired and of another key"] = lambda: token(key("attacker_ed"), claims(ISSUER, lifetime=-600), kid="ed")
    return rows


HOSTILE = {**algorithms(), **confusion(), **keys_confused(), **ignored(), **kids(), **header_asks_for_more(), **bad_json(),
           **encodings(), **structure(), **ecdsa(), **other_signatures(), **wrong_claims()}
