"""sallyport check, dump and schema, over the corpus of good and bad files in tests/config/corpus.

Each bad file stands beside NAME.expected, the lines that check prints for it; SALLYPORT_UPDATE=1 writes them anew, to be
read before they are committed. The same files judge the JSON Schema: what the decoder takes, the schema takes, and what
is wrong in structure both refuse.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess

import jsonschema
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SALLYPORT_BUILD", ROOT / "build")).resolve()
CORPUS = ROOT / "tests/config/corpus"
VALID = sorted(path.name for path in (CORPUS / "valid").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "config/examples").glob("*.yaml"))
INVALID = sorted(path.name for path in (CORPUS / "invalid").glob("*.yaml"))
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "SALLYPORT_TEST_PORT": "9000",
    "SALLYPORT_TEST_EMPTY": "",
    "SALLYPORT_TEST_TOKEN": "correct horse",
    "SALLYPORT_TEST_SECRET": "0123456789abcdef" * 4,
    "GATEWAY_SECRET": "gateway-secret",
    "SALLYPORT_TEST_40": "0123456789" * 4,
}

# Wrong in a way that a JSON Schema cannot see: rules between keys, names, the machine, bounds of durations, grammars.
DECODER_ONLY = {
    "admin-open", "auth-secrets", "consumers-twice", "dangling", "duplicate-addresses", "duplicate-names", "fallbacks",
    "identity-headers-twice", "limits", "redirects-to", "redirects-without-tls", "redis-cluster", "regexes",
    "respond-forwards", "route-providers", "secret-directory", "secret-empty-env", "secret-file", "secrets", "tls-rules", "trusted-proxies",
}
# No JSON Schema without a document: these are no YAML, or not a tree of plain values.
NO_DOCUMENT = {
    "alias-key", "alias-recursive", "alias-unknown", "bad-indent", "billion-laughs", "complex-key", "deep", "duplicate-keys",
    "duplicate-key-late", "tab-indent", "tags", "two-documents", "unclosed-flow", "unclosed-quote", "unquoted-variable",
}


def run(*arguments, folder=None, stdin=None):
    return subprocess.run([BUILD / "sallyport", *arguments], cwd=folder, input=stdin, env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=60, check=False)


class Yaml12(yaml.SafeLoader):
    """YAML with the types of version 1.2, as the program reads it."""


Yaml12.yaml_implicit_resolvers = {}
for tag, pattern, first in [
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", list("tf")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+0123456789.")),
]:
    Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)


@pytest.fixture(scope="module")
def schema():
    document = json.loads(run("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def load(path):
    return yaml.load(path.read_text(), Loader=Yaml12)  # noqa: S506: a SafeLoader underneath


def path_of(error):
    """The place of a schema's complaint, as the program writes it."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    return "".join(steps).lstrip(".")


@pytest.fixture(scope="module")
def valid(pki, tmp_path_factory):
    """The good files, and the certificates that they name."""
    folder = tmp_path_factory.mktemp("valid")
    shutil.copytree(CORPUS / "valid", folder, dirs_exist_ok=True)
    (folder / "certs").mkdir()
    own = pki.ca.issue("api.example")
    for name in ("api", "www", "w w w", "me"):
        shutil.copy(own.cert, folder / f"certs/{name}.pem")
        shutil.copy(own.key, folder / f"certs/{name}.key")
    shutil.copy(pki.ca.ocsp(own), folder / "certs/www.ocsp")
    shutil.copy(pki.clients.file, folder / "certs/clients.pem")
    shutil.copy(pki.ca.file, folder / "certs/internal.pem")
    (folder / "keys").mkdir()
    shutil.copy(own.key, folder / "keys/identity.pem")
    (folder / "certs/both.pem").write_bytes(own.cert.read_bytes() + own.key.read_bytes())
    return folder


@pytest.mark.parametrize("name", VALID)
def test_valid_files(name, schema, valid):
    done = run("check", "-c", name, folder=valid)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"{re.escape(name)}: valid \(\d+ listeners?, \d+ upstreams?, \d+ routes?\)\n", done.stdout)
    errors = [f"{error.json_path}: {error.message}" for error in schema.iter_errors(load(CORPUS / "valid" / name))]
    assert errors == []


@pytest.mark.parametrize("name", INVALID)
def test_invalid_files_say_what_is_wrong(name):
    done = run("check", "-c", name, folder=CORPUS / "invalid")
    expected = CORPUS / "invalid" / name.replace(".yaml", ".expected")
    if os.environ.get("SALLYPORT_UPDATE"):
        expected.write_text(done.stderr)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == expected.read_text()
    report = json.loads(run("check", "--json", "-c", name, folder=CORPUS / "invalid").stdout)
    assert report["valid"] is False
    assert len(report["errors"]) == len(done.stderr.splitlines())
    for error, line in zip(report["errors"], done.stderr.splitlines()):
        assert set(error) == {"file", "line", "column", "path", "what", "hint"}
        assert line.startswith(f"{name}:{error['line']}:{error['column']}: ")


@pytest.mark.parametrize("name", INVALID)
def test_schema_and_decoder_agree_on_structure(name, schema):
    if name.removesuffix(".yaml") in NO_DOCUMENT:
        pytest.skip("no document for a schema to judge")
    refused = {path_of(error) for error in schema.iter_errors(load(CORPUS / "invalid" / name))}
    assert bool(refused) == (name.removesuffix(".yaml") not in DECODER_ONLY)
    report = json.loads(run("check", "--json", "-c", name, folder=CORPUS / "invalid").stdout)
    reported = [error["path"] for error in report["errors"]]
    assert [path for path in refused if not any(at.startswith(path) for at in reported)] == []


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("name", [name for name in VALID if "secrets" not in name])
def test_a_dump_means_the_same(name, form, schema):   # the files of certificates are not looked at
    dump = run("dump", *form, "-c", name, folder=CORPUS / "valid")
    assert (dump.returncode, dump.stderr) == (0, "")
    assert schema.is_valid(json.loads(dump.stdout) if form else yaml.load(dump.stdout, Loader=Yaml12))
    again = run("dump", *form, "-c", "-", stdin=dump.stdout)
    assert (again.returncode, again.stdout) == (0, dump.stdout)


def test_defaults_are_those_of_the_contract():
    dumps = [run("dump", "-c", name, folder=CORPUS / "valid").stdout
             for name in ("defaults.yaml", "defaults-left-out.yaml")]
    assert dumps[0] and dumps[0] == dumps[1]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_secrets_are_never_printed(form):
    dump = run("dump", *form, "-c", "secrets.yaml", folder=CORPUS / "valid").stdout
    assert "***" in dump and "shown" in dump
    for secret in ("correct horse", "hunter2", "aHVudGVyMjpodW50ZXIy"):
        assert secret not in dump
    for name in ("admin-token.yaml", "secret-unknown-key.yaml"):
        done = run("check", "-c", name, folder=CORPUS / "invalid")
        assert done.returncode == 1 and "hunter2" not in done.stdout + done.stderr


def test_secret_files_lose_their_line_end(tmp_path):
    (tmp_path / "token").write_text("correct horse\n")
    text = '{version: 1, listeners: [{name: a, address: ":1"}], admin: {address: ":2", token: {file: %s/token}}}'
    done = run("check", "-c", "-", stdin=text % tmp_path)
    assert (done.returncode, done.stdout) == (0, "stdin: valid (1 listener, 0 upstreams, 0 routes)\n")
    (tmp_path / "token").write_text("\n")
    assert "the file is empty" in run("check", "-c", "-", stdin=text % tmp_path).stderr


@pytest.mark.parametrize("arguments", [
    ["check"], ["check", "-c"], ["check", "--jsn", "-c", "x"], ["check", "-c", "a", "b"], ["check", "--markdown", "-c", "a"],
    ["dump"], ["dump", "-c", "a", "b"], ["schema", "-c", "x"], ["schema", "extra"], ["schema", "--json"],
])
def test_wrong_use_is_2(arguments):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"usage: sallyport {arguments[0]} " in done.stderr


@pytest.mark.parametrize("command", ["check", "dump"])
def test_unreadable_files(command, tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        done = run(command, "-c", str(path))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"{path}: cannot ") and done.stderr.count("\n") == 1
    report = json.loads(run("check", "--json", "-c", str(tmp_path / "absent.yaml")).stdout)
    assert report["valid"] is False and report["errors"][0]["line"] == 0


def test_valid_as_json():
    report = json.loads(run("check", "--json", "-c", "minimal.yaml", folder=CORPUS / "valid").stdout)
    assert report == {"valid": True, "errors": []}


def test_a_full_disk_is_a_failure():
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([BUILD / "sallyport", "schema"], stdout=full, stderr=subprocess.PIPE, check=False,
                              timeout=60, text=True)
    assert done.returncode == 1 and "cannot write" in done.stderr


def test_generated_pages_are_fresh():
    assert run("schema").stdout == (ROOT / "docs/schema.json").read_text()
    assert run("schema", "--markdown").stdout == (ROOT / "docs/CONFIGURATION.md").read_text()


def test_links_of_the_reference_lead_somewhere():
    page = (ROOT / "docs/CONFIGURATION.md").read_text()
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", page, re.M)}
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= anchors


def test_ten_thousand_mistakes_are_bounded():
    routes = "".join(f"  - {{name: r{i}, upstream: orders{i}}}\n" for i in range(10000))
    upstreams = "".join(f"  u{i}: {{targets: [{{address: 'a:1'}}]}}\n" for i in range(10000))
    text = "version: 1\nlisteners: [{name: a, address: ':1'}]\nupstreams:\n" + upstreams + "routes:\n" + routes
    done = run("check", "-c", "-", stdin=text)
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert len(lines) == 1001 and lines[-1] == "stdin: 9000 more mistakes are not shown"


def test_routes_show_who_may_call():
    table = run("routes", "-c", "auth.yaml", folder=CORPUS / "valid")
    assert (table.returncode, table.stderr) == (0, "")
    lines = {line.split()[1]: line.partition("  ->  ")[2] for line in table.stdout.splitlines()}
    assert lines == {
        "several": "orders  [auth corp or keys or certificates, optional, scopes orders.read or orders.write, "
                   "roles gold and silver]",
        "open": "orders", "one": "orders  [auth corp]", "variable": "orders  [auth edge]"}
    routes = json.loads(run("routes", "--json", "-c", "auth.yaml", folder=CORPUS / "valid").stdout)
    auth = {route["name"]: route["auth"] for route in routes}
    assert auth["open"] is None
    assert auth["one"] == {"any_of": ["corp"], "optional": False, "require": {
        "scopes": [], "scopes_match": "all", "roles": [], "roles_match": "any"}}
    assert auth["several"]["any_of"] == ["corp", "keys", "certificates"]
    explained = run("explain", "-c", "auth.yaml", "GET http://localhost/several", folder=CORPUS / "valid")
    assert json.loads(explained.stdout)["auth"] == auth["several"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_and_shown(path, schema):
    done = run("check", "-c", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [error.message for error in schema.iter_errors(load(path))] == []
    assert f"config/examples/{path.name}" in (ROOT / "docs/AUTH.md").read_text()


FILES = """
version: 1
listeners: [{ name: http, address: "127.0.0.1:0" }]
routes: [{ name: hello, respond: { status: 200, body: hello } }]
"""


@pytest.mark.parametrize("key, content, says", [
    ("identity_token: { key: %s }", None, "identity_token.key: %s: cannot be read"),
    ("identity_token: { key: %s }", "no key", "identity_token.key: it is no private key in PEM"),
    ("consumers_file: %s", None, "consumers_file: %s: cannot be read"),
    ("consumers_file: %s", '{"name": "a", "api_keys": ["zz"]}\n', "consumers_file: "),
])
def test_check_reads_what_identities_need(tmp_path, key, content, says):
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    done = run("check", "-c", "-", stdin=FILES + key % path)
    assert done.returncode == 1
    assert (says % path if "%s" in says else says) in done.stderr
