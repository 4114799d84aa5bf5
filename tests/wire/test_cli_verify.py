"""sallyport verify and hash-key. The vectors of tests/data/jose_vectors.jsonl are those of RFC 7515, 7519, 7520, 7797 and
8037; python3-jwcrypto, another implementation, is asked about each good one too. From them come the wrong ones here.
"""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import utils
from jwcrypto import jwk, jws

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("SALLYPORT_BUILD", ROOT / "build")).resolve() / "sallyport"
VECTORS = [json.loads(line) for line in (ROOT / "tests/data/jose_vectors.jsonl").read_text().splitlines()]
GOOD = {vector["name"]: vector for vector in VECTORS if vector["verdict"] == "valid"}
HS256, RS256 = GOOD["RFC 7515 A.1 HS256"], GOOD["RFC 7515 A.2 RS256"]
ES256, EDDSA = GOOD["RFC 7515 A.3 ES256"], GOOD["RFC 8037 A.4 Ed25519"]
ORDERS = {   # FIPS 186-5, SEC 2
    "P-256": 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551,
    "P-521": 0x01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409,
}
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493   # RFC 8032 5.1
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def run(*arguments, stdin=""):
    text = stdin if isinstance(stdin, bytes) else stdin.encode()
    done = subprocess.run([BINARY, *arguments], input=text, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def verdicts(lines):
    status, out, err = run("verify", "--lines", stdin="".join(f"{line}\n" for line in lines))
    assert (status, err) == (0, "")
    return out.split("\n")[:-1]


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def parts_of(vector):
    header, payload, signature = vector["jws"].split(".")
    return decode(header), decode(payload), decode(signature)


def joined(header, payload, signature):
    return ".".join(map(encode, (header, payload, signature)))


def signed(header, payload=b"{}", key=None):
    """A token with the key of RFC 7515 A.1, whatever its header says."""
    header = header.encode() if isinstance(header, str) else header
    secret = key or decode(HS256["jwk"]["k"])
    signing_input = f"{encode(header)}.{encode(payload)}"
    return f"{signing_input}.{encode(hmac.digest(secret, signing_input.encode(), 'sha256'))}"


def flip(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# ---- the vectors ----

def test_vectors():
    assert len(GOOD) >= 14
    assert verdicts(json.dumps(vector) for vector in VECTORS) == [vector["verdict"] for vector in VECTORS]


@pytest.mark.parametrize("name", GOOD)
def test_another_implementation_agrees(name):
    token = jws.JWS()
    token.deserialize(GOOD[name]["jws"])
    token.verify(jwk.JWK(**GOOD[name]["jwk"]))


# ---- wrong variants: (what, jwk, jws) ----

def broken_bytes():
    """Whatever the algorithm: a bit, a length or a spelling is wrong."""
    for name, vector in GOOD.items():
        key, token = vector["jwk"], vector["jws"]
        header, payload, signature = parts_of(vector)
        for bit in (0, 7, len(signature) * 4, len(signature) * 8 - 8, len(signature) * 8 - 1):
            yield f"{name}: bit {bit} of the signature", key, joined(header, payload, flip(signature, bit))
        yield f"{name}: a bit of the payload", key, joined(header, flip(payload, 3), signature)
        yield f"{name}: white space in the header", key, joined(header + b" ", payload, signature)
        yield f"{name}: no signature", key, joined(header, payload, b"")
        yield f"{name}: a short signature", key, joined(header, payload, signature[:-1])
        yield f"{name}: a long signature", key, joined(header, payload, signature + b"\0")
        yield f"{name}: a zero in front", key, joined(header, payload, b"\0" + signature)
        yield f"{name}: padding", key, token + "=" * (-len(token.split(".")[2]) % 4 or 4)
        yield f"{name}: a newline", key, token + "\n"
        yield f"{name}: a space within", key, token[:-3] + " " + token[-3:]
        yield f"{name}: NUL", key, token + "\0"
        yield f"{name}: a fourth part", key, token + "."
        yield f"{name}: two parts", key, token.rpartition(".")[0]
        yield f"{name}: Bearer", key, "Bearer " + token
        if len(signature) % 3:   # the last character has bits that say nothing, and must be zero
            last = ALPHABET[ALPHABET.index(token[-1]) ^ 1]
            assert decode((token[:-1] + last).split(".")[2]) == signature
            yield f"{name}: not canonical", key, token[:-1] + last
        if set("-_") & set(token):
            yield f"{name}: the other alphabet", key, token.replace("-", "+").replace("_", "/")


def broken_algorithms():
    """The signature of one algorithm under the name of another; and what a public key signs as a secret."""
    names = [f"{kind}{size}" for kind in ("RS", "PS", "ES", "HS") for size in (256, 384, 512)] + ["EdDSA"]
    for vector in (HS256, RS256, ES256, EDDSA, GOOD["RFC 7515 A.4 ES512"], GOOD["RFC 7520 4.2 PS384"]):
        header, payload, signature = parts_of(vector)
        own = json.loads(header)["alg"]
        for name in [*names, "none", "None", "", own.lower(), own + " ", "RS1", "ES256K"]:
            if name != own:
                yield f"{own} as {name!r}", vector["jwk"], joined(json.dumps({"alg": name}).encode(), payload, signature)
    for vector in (RS256, ES256):
        public = jwk.JWK(**vector["jwk"])
        for secret in (public.export_to_pem(), public.export_to_pem().strip(), public.export_public().encode()):
            yield "a public key as a secret", vector["jwk"], signed('{"alg":"HS256"}', key=secret)


def broken_numbers():
    for name in ("RFC 7515 A.3 ES256", "RFC 7515 A.4 ES512", "RFC 7520 4.3 ES512"):
        key = GOOD[name]["jwk"]
        header, payload, signature = parts_of(GOOD[name])
        n, size = ORDERS[key["crv"]], len(signature) // 2
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        top = 2 ** (8 * size) - 1
        for what, pair in {"r=0": (0, s), "s=0": (r, 0), "r=s=0": (0, 0), "r=n": (n, s), "s=n": (r, n), "r=s=n": (n, n),
                           "r=1 s=n": (1, n), "most": (top, top), "swapped": (s, r), "-r": (n - r, s)}.items():
            raw = b"".join(number.to_bytes(size, "big") for number in pair)
            yield f"{name}: {what}", key, joined(header, payload, raw)
        yield f"{name}: DER", key, joined(header, payload, utils.encode_dss_signature(r, s))
        longer = b"".join(number.to_bytes(size + 1, "big") for number in (r, s))
        yield f"{name}: one byte more each", key, joined(header, payload, longer)
    header, payload, signature = parts_of(EDDSA)
    s = int.from_bytes(signature[32:], "little") + ED25519_ORDER   # RFC 8032 5.1.7: the same point
    yield "EdDSA: s+L", EDDSA["jwk"], joined(header, payload, signature[:32] + s.to_bytes(32, "little"))
    header, payload, signature = parts_of(RS256)
    n = int.from_bytes(decode(RS256["jwk"]["n"]), "big")
    number = int.from_bytes(signature, "big") + n
    if number < 2**2048:
        yield "RS256: s+n", RS256["jwk"], joined(header, payload, number.to_bytes(256, "big"))
    for what, value in {"0": 0, "1": 1, "n-1": n - 1, "n": n}.items():
        yield f"RS256: s={what}", RS256["jwk"], joined(header, payload, value.to_bytes(256, "big"))


def broken_headers():
    """Well signed, and still refused for what the header says."""
    for header in [
        '{"alg":"HS256","crit":["exp"],"exp":1}', '{"alg":"HS256","crit":[]}', '{"alg":"HS256","crit":["b64"],"b64":true}',
        '{"alg":"HS256","b64":false}', '{"alg":"HS256","jku":"https://evil.example/"}', '{"alg":"HS256","x5u":"https://evil.example/"}',
        '{"alg":"HS256","x5c":["MIIB"]}', json.dumps({"alg": "HS256", "jwk": HS256["jwk"]}), '{"alg":"HS256","alg":"HS256"}',
        '{"alg":"none","alg":"HS256"}', '{"alg":"HS256","\\u0061lg":"none"}', '{"alg":"HS256","kid":"a","kid":"a"}', '{"alg":["HS256"]}',
        '{"alg":null}', "{}", '{"ALG":"HS256"}', '["HS256"]', '"HS256"', "", "{", '{"alg":"HS256"}x', '{"alg":"HS256",}', "\ufeff{\"alg\":\"HS256\"}",
        '{"alg":"HS256","kid":1}', '{"alg":"HS256","kid":null}', '{"alg":"HS256","kid":""}', json.dumps({"alg": "HS256", "kid": "a" * 257}),
        "{'alg':'HS256'}", '{"alg":"HS256","x":"\ud800"}'.encode("utf-8", "surrogatepass"), '{"alg":"HS256","x":"\\ud800"}',
        '{"alg":"HS256","x":' + "[" * 40 + "]" * 40 + "}",
    ]:
        yield f"header {header[:60]}", HS256["jwk"], signed(header)
    named = {**HS256["jwk"], "kid": "mine"}
    yield "the kid of another key", named, signed('{"alg":"HS256","kid":"yours"}')
    yield "the kid in other case", named, signed('{"alg":"HS256","kid":"Mine"}')
    yield "a huge token", HS256["jwk"], signed('{"alg":"HS256"}', b"[" + b"1," * 20000 + b"1]")


def broken_keys():
    for vector, change in [
        (HS256, {"use": "enc"}), (HS256, {"use": 1}), (HS256, {"key_ops": ["sign"]}), (HS256, {"key_ops": "verify"}), (HS256, {"key_ops": []}),
        (HS256, {"alg": "HS512"}), (HS256, {"alg": "none"}), (HS256, {"k": encode(b"k" * 31)}), (HS256, {"k": ""}), (HS256, {"k": None}),
        (HS256, {"k": HS256["jwk"]["k"] + "="}), (HS256, {"kty": "OCT"}), (HS256, {"kty": None}), (HS256, {"kid": 7}),
        (RS256, {"use": "enc"}), (RS256, {"alg": "RS384"}), (RS256, {"alg": "PS256"}), (RS256, {"e": encode(b"\1")}), (RS256, {"e": encode(b"\2")}),
        (RS256, {"n": encode(b"\xff" * 128)}), (RS256, {"n": ES256["jwk"]["x"]}), (RS256, {"kty": "EC"}),
        (ES256, {"crv": "P-384"}), (ES256, {"crv": "secp256k1"}), (ES256, {"crv": "P-521"}), (ES256, {"y": ES256["jwk"]["x"]}),
        (ES256, {"x": encode(bytes(32)), "y": encode(bytes(32))}), (ES256, {"x": encode(b"\0" + decode(ES256["jwk"]["x"]))}), (ES256, {"alg": "ES384"}),
        (EDDSA, {"crv": "Ed448"}), (EDDSA, {"crv": "X25519"}), (EDDSA, {"x": encode(bytes(32))}), (EDDSA, {"x": encode(b"\1" + bytes(31))}),
        (EDDSA, {"x": encode(decode(EDDSA["jwk"]["x"])[:31])}), (EDDSA, {"kty": "EC"}),
    ]:
        yield f"key with {change}", {**vector["jwk"], **change}, vector["jws"]


WRONG = [*broken_bytes(), *broken_algorithms(), *broken_numbers(), *broken_headers(), *broken_keys()]


def test_the_hand_that_signs_here_signs_well():
    """Else the well signed wrong ones would be refused for another reason."""
    lines = [{"jwk": HS256["jwk"], "jws": signed(header)} for header in (
        '{"alg":"HS256"}', '{"kid":"any","alg":"HS256","typ":"JOSE","x5t":"y","other":[1]}', ' {"al\\u0067" : "HS256"} ')]
    lines.append({"jwk": {**HS256["jwk"], "kid": "mine"}, "jws": signed('{"alg":"HS256","kid":"mine"}')})
    assert verdicts(map(json.dumps, lines)) == ["valid"] * 4


def test_wrong_variants():
    assert len(WRONG) > 100
    answers = verdicts(json.dumps({"jwk": key, "jws": token}) for _, key, token in WRONG)
    assert len(answers) == len(WRONG)
    assert [what for (what, _, _), answer in zip(WRONG, answers) if answer != "invalid"] == []


def test_lines_that_are_none():
    good = json.dumps(HS256)
    key, token = json.dumps(HS256["jwk"]), json.dumps(HS256["jws"])
    wrong = ["", " ", "x", "{}", "[]", "null", f'{{"jws":{token}}}', f'{{"jwk":{key}}}', f'{{"jwk":{key},"jws":1}}',
             f'{{"jwk":{json.dumps(key)},"jws":{token}}}', f'{{"jwk":{{"keys":[{key}]}},"jws":[{token}]}}',
             f'{{"jwk":{key},"jws":{token},"jws":{token}}}', f'{{"jwk":{key},"jws":{token}}} {good}',
             f'{{"jwk":{key[:-1]},"kty":"oct"}},"jws":{token}}}', good[:-1], good + "x" * 2_000_000, good + " " * 2_000_000]
    lines = [line for each in wrong for line in (each, good)]
    assert verdicts(lines) == ["invalid", "valid"] * len(wrong)
    assert run("verify", "--lines") == (0, "", "")
    assert run("verify", "--lines", stdin=good) == (0, "valid\n", "")   # the last line needs no end
    assert run("verify", "--lines", stdin=b"\xff\0\n\xff") == (0, "invalid\ninvalid\n", "")


def test_who_asks_line_by_line_is_answered():
    with subprocess.Popen([BINARY, "verify", "--lines"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asked:
        for vector in VECTORS:
            asked.stdin.write(json.dumps(vector) + "\n")
            asked.stdin.flush()
            assert asked.stdout.readline() == vector["verdict"] + "\n"
        asked.stdin.close()
        assert asked.wait(10) == 0


# ---- one token ----

@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The file of a key set, and what signs tokens for it."""
    made = {alg: jwk.JWK.generate(kid=alg, use="sig", alg=alg, **how) for alg, how in {
        "RS256": {"kty": "RSA", "size": 2048}, "ES256": {"kty": "EC", "crv": "P-256"}, "EdDSA": {"kty": "OKP", "crv": "Ed25519"}}.items()}
    made["file"] = tmp_path_factory.mktemp("keys") / "jwks.json"
    made["file"].write_text(json.dumps({"keys": [key.export_public(as_dict=True) for key in made.values() if isinstance(key, jwk.JWK)]}))
    return made


def issue(keys, claims, alg="ES256", **header):
    token = jws.JWS(json.dumps(claims) if isinstance(claims, dict) else claims)
    token.add_signature(keys[alg], None, json.dumps({"alg": alg, "kid": alg, **header}))
    return token.serialize(compact=True)


def verify(keys, token, *more):
    return run("verify", "--jwks", str(keys["file"]), *more, stdin=token)


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_the_claims_of_a_good_token(keys, alg):
    claims = {"iss": "https://a.example", "aud": ["x", "orders"], "sub": "é\n", "exp": int(time.time()) + 60, "deep": {"n": 1.5}}
    status, out, err = verify(keys, issue(keys, claims, alg) + "\n", "--issuer", "https://a.example", "--audience", "orders")
    assert (status, err, json.loads(out)) == (0, "", claims)
    assert verify(keys, issue(keys, claims, alg), "--audience=none", "--audience=x")[0] == 0
    assert verify(keys, issue(keys, claims, alg))[0] == 0


NOW = int(time.time())


@pytest.mark.parametrize("claims, more, words", [
    ({"exp": NOW - 5}, [], "the token has expired"),
    ({"nbf": NOW + 3600}, [], "the token is not valid yet"),
    ({"exp": "soon"}, [], "a claim of the token has the wrong type"),
    ({"iss": "https://b.example"}, ["--issuer", "https://a.example"], "the token is of another issuer"),
    ({"iss": "https://a.example/"}, ["--issuer", "https://a.example"], "the token is of another issuer"),
    ({}, ["--issuer", "https://a.example"], "a required claim is missing: iss"),
    ({"aud": ["x"]}, ["--audience", "orders"], "the token is for another audience"),
    ({}, ["--audience", "orders"], "a required claim is missing: aud"),
    (b"[1]", [], "the token is malformed"),
    (b"{\"a\":1,\"a\":1}", [], "the token is malformed"),
])
def test_the_reason_against_a_token(keys, claims, more, words):
    assert verify(keys, issue(keys, claims), *more) == (1, "", f"sallyport: {words}\n")


def test_the_reason_against_a_signature(keys):
    good = issue(keys, {"sub": "a"})
    header, payload, signature = good.split(".")
    other = jwk.JWK.generate(kty="EC", crv="P-256")
    nothing, unsigned = encode(b"{}"), encode(b'{"alg":"none"}')
    for token, words in {
        f"{header}.{nothing}.{signature}": "the token's signature is not valid",
        f"{unsigned}.{payload}.": "the token's algorithm is not accepted",
        issue(keys, {}, kid="who"): "the token is signed with an unknown key",
        issue({"ES256": other}, {}): "the token's signature is not valid",
        issue(keys, {}, typ="logout+jwt"): "the token's header asks for something that is not supported",
        issue(keys, {}, jku="https://evil.example/"): "the token's header asks for something that is not supported",
        "": "the token is malformed",
        "\n\n": "the token is malformed",
        "no token": "the token is malformed",
        f"{good} {good}": "the token is malformed",
        "a" * 20000: "the token is too long",
    }.items():
        assert verify(keys, token) == (1, "", f"sallyport: {words}\n")


def test_files_that_are_no_key_set(tmp_path, keys):
    for text, words in {
        "{": "the key set is not JSON: ", "{}": "it is neither a JWK Set nor a JWK", '{"keys":[]}': "the key set holds no key that verifies tokens",
        json.dumps(HS256["jwk"]): "the key set holds a private or symmetric key",
        keys["ES256"].export_private(): "the key set holds a private or symmetric key",
    }.items():
        file = tmp_path / "wrong.json"
        file.write_text(text)
        status, out, err = run("verify", "--jwks", str(file), stdin=issue(keys, {}))
        assert (status, out) == (1, "")
        assert err.startswith(f"sallyport: {file}: {words}") and err.count("\n") == 1
    status, _, err = run("verify", "--jwks", str(tmp_path / "none"))
    assert status == 1 and err.startswith(f"sallyport: {tmp_path / 'none'}: cannot open it")


@pytest.mark.parametrize("arguments", [
    [], ["x"], ["--jwks"], ["--jwks", "a", "b"], ["--unknown"], ["--lines", "--jwks", "a"], ["--lines", "--issuer", "a"], ["--issuer", "a"],
    ["--jwks", "a", "--issuer", ""], ["--jwks", "a", "--audience", ""], ["--jwks", "a", *["--audience", "b"] * 17],
])
def test_verify_used_wrongly(arguments):
    status, out, err = run("verify", *arguments)
    assert (status, out) == (2, "") and "usage: sallyport verify" in err


def test_an_endless_stdin_ends():
    with open("/dev/zero", "rb") as zero:
        done = subprocess.run([BINARY, "hash-key"], stdin=zero, capture_output=True, text=True, timeout=150, check=False)
    assert (done.returncode, done.stdout) == (1, "") and "larger than" in done.stderr


def test_a_full_disk_is_no_success(keys):
    with open("/dev/full", "w") as full:
        for arguments, text in ((["verify", "--jwks", str(keys["file"])], issue(keys, {})), (["verify", "--lines"], json.dumps(HS256)), (["hash-key"], "key")):
            done = subprocess.run([BINARY, *arguments], input=text, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
            assert done.returncode == 1 and "cannot write" in done.stderr


# ---- keys ----

@pytest.mark.parametrize("key", [b"k", b"sk-live-0123456789", b" with space ", "schlüssel".encode(), b"a\nb", b"\0", b"x" * 1024])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_hash_of_a_key(key, end):
    assert run("hash-key", stdin=key + end) == (0, hashlib.sha256(key).hexdigest() + "\n", "")


@pytest.mark.parametrize("key", ["", "\n", "\r\n", "x" * 1025, "x" * 100_000])
def test_no_hash_of_what_is_no_key(key):
    assert run("hash-key", stdin=key) == (1, "", "sallyport: stdin: an API key has 1 to 1024 bytes\n")


def test_hash_key_used_wrongly():
    for arguments in (["key"], ["--unknown"]):   # a key among the arguments would be seen by all on the machine
        status, out, err = run("hash-key", *arguments)
        assert (status, out) == (2, "") and err.startswith("usage: sallyport hash-key")


def test_help_and_near_misses():
    out = run("help")[1]
    assert "\n  hash-key " in out and "\n  verify " in out
    assert 'did you mean "verify"' in run("verfy")[2]
    assert 'did you mean "hash-key"' in run("hash_key")[2]
