"""Groups that Microsoft Entra has no room for in its tokens: all of them of Graph, or those known before."""

import hashlib
import json
import os
import time

import pytest
import test_oidc
from graph import Graph
from idp import login
from stand import Stand, header
from test_oidc import make_world
from test_provider import Provider
from trial import wait_for

modules = test_oidc.modules
ELSEWHERE = {"_claim_names": {"groups": "src1"},
             "_claim_sources": {"src1": {"endpoint": "http://127.0.0.1:9/users/dana/getMemberObjects"}}}
ROUTES = """
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:UP
    id: app
    pass_identity_headers: true
    allow_any_authenticated_user: true
  - from: https://other.localhost:PORT
    to: http://127.0.0.1:UP
    id: other
    policy: [{allow: {or: [{groups: {has: g-499}}]}}]
  - from: https://admin.localhost:PORT
    to: http://127.0.0.1:UP
    id: admin
    policy:
      - allow: {and: [{authenticated_user: true}]}
      - deny: {or: [{groups: {has: suspended}}]}
"""
MANY = [f"g-{i}" for i in range(500)]


@pytest.fixture(scope="module")
def graph():
    g = Graph(MANY)
    yield g
    g.close()


@pytest.fixture(autouse=True)
def graph_is_well(graph):
    graph.groups, graph.odd = MANY, {}
    graph.asked.clear()


@pytest.fixture(scope="module")
def world(upstream, graph):
    provider = Provider()
    provider.claims = dict(ELSEWHERE)
    stand = Stand(ROUTES.replace("UP", str(upstream.port)), settings=(
        f"idp_provider: oidc\nidp_provider_url: {provider.issuer}\nidp_client_id: postern\nidp_client_secret: s\n"
        f"idp_graph_url: {graph.url}\n")).start()
    yield stand, provider
    stand.stop()
    provider.close()


def be(provider, user, **claims):
    """Who logs in from now on."""
    provider.claims, provider.userinfo = {"sub": user, **claims}, {"sub": user}


def enter(stand):
    b = stand.browser()
    assert b.get(stand.url("app")).status_code == 200
    return b


def who(stand, user):
    return json.loads(stand.cli("explain", "--json", "--route", "other", "--user", user).stdout)["who"]


def text(stand, user):
    return stand.cli("explain", "--route", "other", "--user", user).stdout


def test_every_page_counts_at_a_login(world, graph):
    stand, provider = world
    be(provider, "all", **ELSEWHERE)
    b = enter(stand)
    assert b.get(stand.url("other")).status_code == 200
    assert len(graph.asked) == 5 and set(graph.tokens) == {"Bearer a"}
    known = who(stand, "all")
    assert (known["groups"], known["groups_from"], known["groups_whole"], known.get("groups_error")) == (500, "record", True, None)
    assert "groups: 500, from the directory record, complete as of" in text(stand, "all")
    # Fewer groups have room in the token: Graph is asked no more.
    be(provider, "all", groups=["g-1", "g-499"])
    assert enter(stand).get(stand.url("other")).status_code == 200
    assert len(graph.asked) == 5 and who(stand, "all")["groups"] == 2


def other(status):
    return lambda body: (status, {"error": {"code": "x"}})


LONG = pytest.mark.skipif(os.environ.get("POSTERN_PROOF") != "full", reason="waits for 9 s; make proof does")


def incomplete(stand):
    return [e for e in stand.logs("authenticate") if e["event"] == "login.groups_incomplete"]


def hang(body):
    time.sleep(9)
    return 200, body


@pytest.mark.parametrize("odd, says", [
    (other(503), "page 3: status 503"),
    (other(429), "page 3: status 429 (too many requests)"),
    (other(403), "page 3: status 403 (the access token may not read groups: idp_scopes needs User.Read)"),
    (lambda body: (200, b'{"value": ['), "page 3: no JSON object"),
    (lambda body: (200, {"error": 1}), "page 3: not an answer"),
    (lambda body: (200, {**body, "value": [{"id": "g"}]}), "page 3: not an answer"),
    (lambda body: (200, {**body, "@odata.nextLink": "http://127.0.0.1:9/v1.0/x"}), "page 3: not an answer"),
    (lambda body: (200, {**body, "@odata.nextLink": body["@odata.nextLink"].replace("127.0.0.1:", "127.0.0.1:80@evil.test:")}),
     "page 3: not an answer"),
    (lambda body: (200, {**body, "@odata.nextLink": body["@odata.nextLink"].replace("skiptoken=3", "skiptoken=2")}),
     "page 50: there is no end of pages"),
    (lambda body: (200, {**body, "@odata.nextLink": 7}), "page 3: not an answer"),
    (lambda body: (200, {**body, "value": [{"@odata.type": "#microsoft.graph.group", "id": f"h-{i}"} for i in range(5000)]}),
     "page 3: more groups than one person may have"),
    (lambda body: (200, b" " * (1 << 20) + b"{}"), "page 3: no answer"),
    pytest.param(hang, "page 3: no answer", marks=LONG),
])
def test_a_page_that_fails_replaces_nothing_and_keeps_nobody_out(world, graph, request, odd, says):
    stand, provider = world
    user = "u" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    be(provider, user, **ELSEWHERE)
    before = len(incomplete(stand))
    # Nothing is known yet: the login goes on, and what rules ask of groups counts against it.
    graph.odd = {2: odd}
    b = enter(stand)
    assert b.get(stand.url("other")).status_code == 403
    assert b.get(stand.url("admin")).status_code == 403  # who denies by group does not let in whom nobody knows
    known = who(stand, user)
    assert known["groups_from"] == "none" and says in known["groups_error"] and "groups" not in known
    graph.odd = {}
    b = enter(stand)
    assert b.get(stand.url("other")).status_code == 200 and b.get(stand.url("admin")).status_code == 200
    first = who(stand, user)
    assert first["groups"] == 500 and first["groups_whole"] and "groups_error" not in first
    # What is known stays when it fails again, with its age.
    graph.odd = {2: odd}
    assert enter(stand).get(stand.url("other")).status_code == 200
    known = who(stand, user)
    assert (known["groups"], known["groups_whole"], known["groups_as_of"]) == (500, False, first["groups_as_of"])
    assert says in known["groups_error"]
    assert "; incomplete since then: Microsoft Graph, page" in text(stand, user)
    warned = incomplete(stand)[before:]
    assert len(warned) == 2 and says in warned[0]["why"]


def test_a_refresh_asks_again_and_a_failure_keeps_what_is_known(world, graph):
    stand, provider = world
    be(provider, "again", exp=lambda now: now + 6, **ELSEWHERE)
    provider.more = {"expires_in": 6, "refresh_token": "r0"}
    provider.refresh = lambda token: (200, {"access_token": "a", "token_type": "Bearer", "expires_in": 6, "refresh_token": "r0",
                                            "id_token": provider.token("none")})
    b = enter(stand)
    assert b.get(stand.url("other")).status_code == 200
    graph.odd = {1: other(500)}
    wait_for("a refresh without Graph", lambda: "page 2: status 500" in who(stand, "again").get("groups_error", ""), 30)
    assert who(stand, "again")["groups"] == 500 and b.get(stand.url("other")).status_code == 200
    graph.odd, graph.groups = {}, MANY[:250]
    wait_for("the next one, with less groups", lambda: who(stand, "again")["groups"] == 250, 30)
    assert who(stand, "again")["groups_whole"] and "groups_error" not in who(stand, "again")
    wait_for("the route to close", lambda: b.get(stand.url("other")).status_code == 403)
    provider.more, provider.refresh = {}, lambda token: (400, {"error": "invalid_grant"})
    wait_for("the end of the session", lambda: b.fetch(stand.url("app")).status_code == 401, 30)


def test_without_graph_the_login_goes_on_and_says_so(upstream):
    provider = Provider()
    provider.claims = {"hasgroups": True}
    stand = Stand(ROUTES.replace("UP", str(upstream.port)), settings=(
        f"idp_provider: oidc\nidp_provider_url: {provider.issuer}\nidp_client_id: postern\nidp_client_secret: s\n"))
    try:
        stand.start()
        assert enter(stand).get(stand.url("other")).status_code == 403
        assert "idp_graph_url is not set" in who(stand, "dana")["groups_error"]
    finally:
        stand.stop()
        provider.close()


def test_a_provider_that_we_did_not_write_says_that_they_are_elsewhere(modules, upstream):
    stand, provider = make_world(modules, upstream)
    graph = Graph([f"x-{i}" for i in range(250)] + ["staff"])
    stand.settings += f"idp_graph_url: {graph.url}\n"
    stand.write_config()
    dana = provider.settings["accounts"]["dana"]
    del dana["groups"]
    dana.update(ELSEWHERE)
    try:
        provider.start()
        stand.start()
        b, page = login(stand, provider, stand.url("app"))
        assert page.status_code == 200
        assert b.get(stand.url("other")).status_code == 200 and len(graph.asked) == 3
        b.get(stand.url("app"))
        assert header(upstream.heads[-1], "X-Pomerium-Jwt-Assertion")
        assert b.get(stand.url("admin")).status_code == 403
    finally:
        stand.stop()
        provider.stop()
        graph.close()
