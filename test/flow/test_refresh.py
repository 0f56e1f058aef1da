"""Sessions whose tokens end: at a real provider whose refresh tokens are good for once."""

import concurrent.futures
import signal
import time

import pytest
import test_oidc
from idp import login
from stand import Stand, header
from test_oidc import make_world
from test_provider import ROUTES, Provider
from trial import wait_for

modules = test_oidc.modules
LIFE_S = 12


@pytest.fixture()
def world(modules, upstream):
    stand, provider = make_world(modules, upstream)
    stand.settings += "idp_request_params: {prompt: consent}\n"  # without consent no refresh token
    stand.write_config()
    provider.settings["ttl"] = {"AccessToken": LIFE_S, "IdToken": LIFE_S}
    yield stand, provider
    for p in stand.processes.values():
        if p.poll() is None:
            p.send_signal(signal.SIGCONT)
    stand.stop()
    provider.stop()


def events(stand, name, daemon="authenticate"):
    return [x for x in stand.logs(daemon) if x["event"] == name]


def no_secrets_in_logs(stand):
    for daemon in ("proxy", "authenticate", "authorize", "databroker"):
        with open(stand.log_file(daemon), errors="replace") as f:
            text = f.read()
        assert "client-secret-canary" not in text and "eyJ" not in text, daemon


def test_requests_at_the_end_of_a_token_redeem_nothing_and_lose_nothing(world, upstream):
    """200 at once while the one refresh token is due: the provider sees one redeeming."""
    stand, provider = world
    provider.start()
    stand.start()
    b, page = login(stand, provider, stand.url("keys"))
    assert page.status_code == 200, (page.status_code, page.url, page.text[-800:])
    first = header(upstream.heads[-1], "X-Access")[0]
    began = time.monotonic()

    def ask(_):
        return b.fetch(stand.url("keys")).status_code

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        while not provider.grants() and time.monotonic() - began < 60:
            assert set(pool.map(ask, range(200))) == {200}
        assert set(pool.map(ask, range(200))) == {200}
    assert len(provider.grants()) == 1 and provider.grants("error") == []

    def renewed():
        return b.fetch(stand.url("keys")).status_code == 200 and header(upstream.heads[-1], "X-Access")[0] != first
    wait_for("the new access token at the application", renewed, 10)
    wait_for("the next redeeming, with the next token", lambda: len(provider.grants()) >= 2, 40)
    assert b.fetch(stand.url("keys")).status_code == 200 and provider.grants("error") == []
    no_secrets_in_logs(stand)


def test_two_authenticates_share_the_work(world, upstream):
    stand, provider = world
    provider.settings["refresh_delay_ms"] = 2000
    stand.env["authenticate-2"] = {"AUTHENTICATE_INTERNAL_SERVICE_URL": f"unix:{stand.folder}/authenticate-2-http.sock"}
    provider.start()
    stand.start()
    stand.start_one("authenticate-2")
    stand.wait_ready()
    people = [login(stand, provider, stand.url("app"))[0] for _ in range(3)]
    wait_for("some rounds", lambda: len(provider.grants()) >= 9, 90)
    assert provider.grants("error") == []
    assert [b.fetch(stand.url("app")).status_code for b in people] == [200, 200, 200]
    done = [len(events(stand, "session.refreshed", d)) for d in ("authenticate", "authenticate-2")]
    assert sum(done) + 3 >= 9, done
    # Not SIGKILL, which loses what is being redeemed just then: that is the next test.
    assert stand.kill("authenticate-2", signal.SIGTERM) == 0
    seen = len(provider.grants())
    wait_for("the other one to go on alone", lambda: len(provider.grants()) >= seen + 6, 90)
    assert provider.grants("error") == []
    assert [b.fetch(stand.url("app")).status_code for b in people] == [200, 200, 200]


def test_the_owner_is_killed_between_the_providers_answer_and_the_write(world, upstream):
    stand, provider = world
    provider.settings["refresh_delay_ms"] = 1500
    provider.start()
    stand.start()
    b, page = login(stand, provider, stand.url("app"))
    assert page.status_code == 200
    wait_for("a redeeming", lambda: provider.grants(), 60)
    stand.kill("authenticate")
    assert b.fetch(stand.url("app")).status_code == 200
    stand.start_one("authenticate")
    stand.wait_ready()
    wait_for("the end of a session that cannot be refreshed", lambda: b.fetch(stand.url("app")).status_code == 401, 90, 0.5)
    assert len(provider.grants()) == 1 and len(events(stand, "session.ended")) == 1
    b, page = login(stand, provider, stand.url("app"))
    assert page.status_code == 200
    wait_for("refreshing goes on", lambda: len(provider.grants()) >= 3, 60)
    assert b.fetch(stand.url("app")).status_code == 200 and len(events(stand, "session.ended")) == 1


def test_an_authenticate_that_is_stopped_writes_what_it_was_told(world, upstream):
    stand, provider = world
    provider.settings["refresh_delay_ms"] = 1500
    provider.start()
    stand.start()
    b, page = login(stand, provider, stand.url("app"))
    assert page.status_code == 200
    wait_for("a redeeming", lambda: provider.grants(), 60)
    assert stand.kill("authenticate", signal.SIGTERM) == 0
    stand.start_one("authenticate")
    stand.wait_ready()
    wait_for("the next one", lambda: len(provider.grants()) >= 2, 60)
    assert b.fetch(stand.url("app")).status_code == 200 and provider.grants("error") == []


def test_a_databroker_that_is_away_just_then_loses_nothing(world, upstream):
    stand, provider = world
    provider.settings["refresh_delay_ms"] = 1000
    provider.start()
    stand.start()
    b, page = login(stand, provider, stand.url("app"))
    assert page.status_code == 200
    wait_for("a redeeming", lambda: provider.grants(), 60)
    stand.kill("databroker")
    time.sleep(6)
    stand.start_one("databroker")
    stand.wait_ready()
    wait_for("the next one", lambda: len(provider.grants()) >= 2, 60)
    assert b.fetch(stand.url("app")).status_code == 200 and provider.grants("error") == []


# --- a provider that misbehaves ---------------------------------------------------------------------


@pytest.fixture()
def odd(upstream):
    """A provider whose tokens live so short that they are refreshed after 5 s."""
    provider = Provider()
    provider.claims = {"exp": lambda now: now + 6, "groups": ["staff"]}
    provider.more = {"expires_in": 6, "refresh_token": "rt-canary-0"}
    stand = Stand(ROUTES.replace("UP", str(upstream.port)) + f"""
  - from: https://public.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    policy: [{{allow: {{or: [{{groups: {{has: staff}}}}]}}}}]
""", settings=(f"idp_provider: oidc\nidp_provider_url: {provider.issuer}\nidp_client_id: postern\n"
               "idp_client_secret: s\n"))
    yield stand, provider
    stand.stop()
    provider.close()


def fresh(provider, n=1, **more):
    """What a good provider answers to a refresh."""
    return 200, {"access_token": "a", "token_type": "Bearer", "expires_in": 6, "refresh_token": f"rt-canary-{n}",
                 "id_token": provider.token("none"), **more}


def enter(stand):
    b = stand.browser()
    for host in ("app", "public"):
        page = b.get(stand.url(host))
        assert page.status_code == 200, page.text[-800:]
    return b


def test_errors_of_the_provider_keep_the_session_and_are_tried_again(odd):
    stand, provider = odd
    asked = []

    def refresh(token):
        asked.append((time.monotonic(), token))
        return (503, b"") if len(asked) < 3 else fresh(provider, len(asked))

    provider.refresh = refresh
    stand.start()
    b = enter(stand)
    wait_for("three tries", lambda: len(asked) >= 3, 90)
    assert b.fetch(stand.url("app")).status_code == 200
    assert [token for _, token in asked[:3]] == ["rt-canary-0"] * 3
    assert asked[2][0] - asked[1][0] > asked[1][0] - asked[0][0] > 2  # later and later
    wait_for("the next with the new one", lambda: asked[3:] and asked[3][1] == "rt-canary-3", 40)
    with open(stand.log_file("authenticate")) as f:
        assert "rt-canary" not in f.read()


def test_a_refused_refresh_token_ends_the_session_after_a_second_look(odd):
    stand, provider = odd
    provider.refresh = lambda token: (400, {"error": "invalid_grant"})
    stand.start()
    b = enter(stand)
    wait_for("the end", lambda: b.fetch(stand.url("app")).status_code == 401, 40, 0.2)
    assert "invalid_grant" in events(stand, "session.ended")[0]["why"]


def test_refused_client_is_no_fault_of_the_session(odd):
    stand, provider = odd
    provider.refresh = lambda token: (401, {"error": "invalid_client"})
    stand.start()
    b = enter(stand)
    wait_for("a try", lambda: events(stand, "session.not_refreshed"), 40)
    assert "idp_client_secret" in events(stand, "session.not_refreshed")[0]["why"]
    assert b.fetch(stand.url("app")).status_code == 200


@pytest.mark.parametrize("claims", [{"sub": "mallory"}, {"aud": "another"}, {"iss": "https://other.example"},
                                    {"azp": "another"}, {"exp": 1}])
def test_a_refreshed_token_that_does_not_verify_changes_nothing(odd, claims):
    """Of another person it ends the session."""
    stand, provider = odd

    def refresh(token):
        provider.claims = {**provider.claims, "email": "mallory@example.com", **claims}
        provider.userinfo = {"sub": "mallory"}
        return fresh(provider)

    provider.refresh = refresh
    stand.start()
    b = enter(stand)
    if "sub" in claims:
        wait_for("the end", lambda: b.fetch(stand.url("app")).status_code == 401, 40, 0.2)
        assert "somebody else" in events(stand, "session.ended")[0]["why"]
    else:
        wait_for("a try", lambda: events(stand, "session.not_refreshed"), 40)
        assert b.fetch(stand.url("app")).status_code == 200
        assert events(stand, "session.refreshed") == []


def test_groups_and_claims_follow_the_refreshed_token(odd, upstream):
    stand, provider = odd
    stage = {"groups": ["staff"]}

    def refresh(token):
        provider.claims = {**provider.claims, **stage}
        return fresh(provider, n=int(token[-1]) + 1)

    provider.refresh = refresh
    stand.start()
    b = enter(stand)
    assert b.fetch(stand.url("public")).status_code == 200
    stage = {"groups": ["guests"]}
    wait_for("the lost group to bite", lambda: b.fetch(stand.url("public")).status_code == 403, 40, 0.2)
    assert b.fetch(stand.url("app")).status_code == 200
    stage = {"groups": ["staff"]}
    wait_for("the group again", lambda: b.fetch(stand.url("public")).status_code == 200, 40, 0.2)
    stage = {"email": "elsewhere@example.com"}
    wait_for("the new address to bite", lambda: b.fetch(stand.url("app")).status_code == 403, 40, 0.2)


def test_a_reference_to_groups_does_not_replace_those_that_are_known(odd):
    stand, provider = odd

    def refresh(token):
        provider.claims = {"exp": lambda now: now + 6, "_claim_names": {"groups": "src1"},
                           "_claim_sources": {"src1": {"endpoint": "https://graph.example/x"}}}
        return fresh(provider)

    provider.refresh = refresh
    stand.start()
    b = enter(stand)
    wait_for("a refresh", lambda: events(stand, "session.refreshed"), 40)
    assert events(stand, "session.groups_incomplete") and b.fetch(stand.url("public")).status_code == 200


@pytest.mark.parametrize("access_token, userinfo", [("a", b"{"), ("refused", {"sub": "dana", "name": "Dana"})])
def test_half_of_the_claims_do_not_replace_all_of_them(odd, access_token, userinfo):
    """userinfo fails, or is refused: what it told before stays, and the new tokens are kept."""
    stand, provider = odd
    asked = []

    def refresh(token):
        asked.append(token)
        provider.userinfo = userinfo
        return fresh(provider, len(asked), access_token=access_token)

    provider.refresh = refresh
    stand.start()
    b = enter(stand)
    wait_for("two tries, the second with the second token", lambda: asked[1:] and asked[1] == "rt-canary-1", 60)
    assert b.fetch(stand.url("app")).status_code == 200
    assert b.fetch(stand.url("app", "/.pomerium/user")).json()["name"] == "Dana"


def test_a_provider_without_a_new_id_token_or_refresh_token(odd):
    stand, provider = odd
    asked = []

    def refresh(token):
        asked.append(token)
        return 200, {"access_token": "a", "token_type": "Bearer", "expires_in": 6}

    provider.refresh = refresh
    stand.start()
    b = enter(stand)
    wait_for("three rounds", lambda: len(asked) >= 3, 60)
    assert set(asked) == {"rt-canary-0"} and b.fetch(stand.url("public")).status_code == 200
    assert len(events(stand, "session.refreshed")) >= 2
