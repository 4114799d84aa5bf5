"""One canonical path: what is matched is what the upstream gets (RFC 3986 6.2.2; THREATS.md, path normalisation)."""
import pytest

from gateway import Gateway
from peers import Raw, Upstream, request


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """/admin is answered here and must never be reached above; everything else goes to the upstream."""
    upstream = Upstream()
    gateway = Gateway(tmp_path_factory.mktemp("paths"))
    merging = Gateway(tmp_path_factory.mktemp("merging"))
    for each in (gateway, merging):
        listeners = [{"name": "http", "address": f"127.0.0.1:{each.port}", "merge_slashes": each is merging}]
        each.write({**each.config, "workers": 1, "listeners": listeners,
                    "upstreams": {"up": {"targets": [{"address": f"127.0.0.1:{upstream.port}"}]}},
                    "routes": [{"name": "all", "match": {"path": {"prefix": "/"}}, "upstream": "up"},
                               {"name": "admin", "match": {"path": {"prefix": "/admin"}},
                                "respond": {"status": 403, "body": "guarded"}}]})
    with gateway, merging:
        yield upstream, gateway, merging
    upstream.close()


def ask(gateway, target):
    with Raw(gateway.port) as client:
        return client.ask(request(target))


@pytest.mark.parametrize("target, seen", [
    ("/", "/"), ("/a/b/", "/a/b/"), ("/a//b", "/a//b"), ("//", "//"), ("//a", "//a"),
    ("/a/./b", "/a/b"), ("/a/../b", "/b"), ("/a/b/..", "/a/"), ("/a/.", "/a/"), ("/./", "/"), ("/a/b/../../c", "/c"),
    ("/%61%2D%5f%7E", "/a-_~"), ("/a%2e%2e/b", "/a../b"), ("/%2e/a", "/a"), ("/a/%2E%2e/b", "/b"), ("/a/.%2e/b", "/b"),
    ("/%3a%c3%a9", "/%3A%C3%A9"), ("/a;b=c/d", "/a;b=c/d"), ("/a%20b", "/a%20b"), ("/a%25", "/a%25"), ("/...", "/..."),
    ("/.a", "/.a"), ("/a:@!$&'()*+,=", "/a:@!$&'()*+,="), ("/a?x=%2F..%00/../", "/a?x=%2F..%00/../"),
    ("/a?", "/a?"), ("/a??", "/a??"), ("/a/../b?c=/../d", "/b?c=/../d"), ("/A", "/A"), ("/administrator", "/administrator"),
    ("http://h/a/../b", "/b"), ("/a//../b", "/a/b")])
def test_the_upstream_gets_the_canonical_form(guarded, target, seen):
    upstream, gateway, _ = guarded
    upstream.program()
    assert ask(gateway, target).status == 200
    assert upstream.only().target == seen


@pytest.mark.parametrize("target", [
    "/admin", "/admin/", "/admin/x", "/a/../admin", "/./admin", "/%61dmin", "/admi%6e/x", "/a/%2e%2e/admin", "/a/.%2E/admin/x",
    "/admin/./x", "/admin//x", "/x/../admin/../admin/y", "/admin?a", "http://h/admin", "http://h/a/../admin", "/admin%20/../admin", "/admin/%2e"])
def test_every_spelling_of_a_guarded_path_is_guarded(guarded, target):
    upstream, gateway, _ = guarded
    upstream.program()
    got = ask(gateway, target)
    assert got.status == 403 and got.body == b"guarded" and not upstream.requests


@pytest.mark.parametrize("target", [
    "/a%2fb", "/a%2Fb", "/..%2fadmin", "/a%5cb", "/a%5C..%5cadmin", "/a\\..\\admin", "/%00", "/admin%00", "/a%00b", "/a%0d%0aX:",
    "/a%7f", "/%1b", "/%2561dmin", "/%25%36%31dmin", "/a%252fb", "/a%252e%252e/", "/%252e%252e/admin", "/..", "/../admin",
    "/a/../../admin", "/%2e%2e/admin", "/..;/admin", "/a/..;/admin", "/a/..;x=y/admin", "/a/.;/admin", "/a/..%3b/admin",
    "/a/%2e%2e;/admin", "/a/..;", "/%", "/%a", "/%g0", "/%u002e", "/a b", "/a<b", "/a|b", '/a"b', "/a^b", "/a`b", "/a{b}"])
def test_what_could_be_read_in_two_ways_is_refused(guarded, target):
    upstream, gateway, _ = guarded
    upstream.program()
    got = ask(gateway, target)
    assert got.status == 400 and got.json["code"] == "bad_request" and not upstream.requests


@pytest.mark.parametrize("target, seen", [("/a//b", "/a/b"), ("//", "/"), ("///a////b//", "/a/b/"), ("/a//../b", "/b"),
                                          ("/a/.//b", "/a/b"), ("/a?b//c", "/a?b//c"), ("/a%20//b", "/a%20/b")])
def test_merged_slashes(guarded, target, seen):
    upstream, _, merging = guarded
    upstream.program()
    assert ask(merging, target).status == 200
    assert upstream.only().target == seen


@pytest.mark.parametrize("target", ["//admin", "/a/..//admin", "///admin//x", "/.//admin"])
def test_merged_slashes_are_matched_merged(guarded, target):
    upstream, gateway, merging = guarded
    upstream.program()
    assert ask(merging, target).status == 403 and not upstream.requests
    # Kept, they are another path, to match and to forward.
    got = ask(gateway, "//admin")
    assert got.status == 200 and upstream.only().target == "//admin"
