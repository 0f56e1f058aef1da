"""For each reason to refuse somebody: the page, the line of the proxy, the audit line and `postern explain` say the same, and
nothing names the group, address or value that would have let them in."""

import json
import re
from datetime import datetime, timedelta, timezone

import pytest
from stand import PASSWORD, Stand
from trial import wait_for

SECRET = "canary7f3a"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjvovw5d/uvtbJFR98mL13DkNmBfFgOFbeGv+VxY0BV"
REASONS = {  # reason → (criterion that does not hold for user@example.com, status)
    "email-unauthorized": (f"email: {SECRET}@example.com", 403),
    "domain-unauthorized": (f"domain: {SECRET}.example", 403),
    "user-unauthorized": (f"user: {SECRET}", 403),
    "groups-unauthorized": (f"groups: {SECRET}", 403),
    "claim-unauthorized": (f"claim/groups: {SECRET}", 403),
    "idp-unauthorized": (f"idp: https://{SECRET}.example", 403),
    "http-method-unauthorized": ("http_method: DELETE", 403),
    "http-path-unauthorized": (f"http_path: /{SECRET}", 403),
    "host-unauthorized": (f"host: {SECRET}.example", 403),
    "header-unauthorized": (f"header/X-Team: {SECRET}", 403),
    "non-cors-request": ("cors_preflight: true", 403),
    "source-ip-unauthorized": ("source_ip: 203.0.113.77", 403),
    "client-certificate-unauthorized": (f"client_certificate: {{subject: CN={SECRET}}}", 403),
    "date-unauthorized": ("date: {before: 2001-02-03}", 403),
    "day-of-week-unauthorized": ("day_of_week: {is: TODAY}", 403),
    "time-of-day-unauthorized": ('time_of_day: {timezone: UTC, after: "9:00", before: "9:00"}', 403),
    "record-unauthorized": (f"record: {{type: acme.test/{SECRET}, exists: true}}", 403),
    "ssh-username-unauthorized": (f"ssh_username: {SECRET}", 403),
    "ssh-publickey-unauthorized": (f"ssh_publickey: {KEY}", 403),
    "device-unauthenticated": ("device: {type: any}", 450),
    "reject": ("reject: true", 403),
}


# A day that is not today, however long the test takes.
LATER = (datetime.now(timezone.utc) + timedelta(days=3)).strftime("%A").lower()


@pytest.fixture(scope="module")
def stand(upstream):
    routes = "".join(f"""
  - from: https://app.localhost:PORT
    prefix: /{reason}
    to: http://127.0.0.1:{upstream.port}
    policy: [{{allow: {{and: [{{{criterion.replace("TODAY", LATER)}}}]}}}}]
""" for reason, (criterion, _) in REASONS.items())
    s = Stand(routes + f"""
  - from: https://app.localhost:PORT
    to: http://127.0.0.1:{upstream.port}
    allow_any_authenticated_user: true
""").start()
    yield s
    s.stop()


@pytest.fixture(scope="module")
def browser(stand):
    b = stand.browser()
    assert b.login(stand.url("app"), "user@example.com", PASSWORD).status_code == 200
    return b


def line_of(stand, daemon, event, request_id):
    return wait_for(f"the line of {daemon}", lambda: [
        line for line in stand.logs(daemon) if line["event"] == event and line.get("request-id") == request_id])[0]


@pytest.mark.parametrize("reason", REASONS)
def test_page_lines_and_command_agree(stand, browser, reason):
    status = REASONS[reason][1]
    page = browser.get(stand.url("app", "/" + reason))
    request_id = page.headers["x-request-id"]
    assert page.status_code == status and reason in page.text and request_id in page.text
    audit = line_of(stand, "authorize", "authorize check", request_id)
    assert (audit["decision"], audit["reasons"], audit["allow-why-false"]) == ("deny", [reason], [reason])
    access = line_of(stand, "proxy", "http-request", request_id)
    assert access["reasons"] == [reason] and access["response-code"] == status
    told = json.loads(stand.cli("explain", "--json", request_id).stdout)
    assert told["past"]["reasons"] == told["reasons"] == [reason] and told["past"]["status"] == status
    assert told["trace"]["allow"]["rules"][0]["criteria"][0]["reason"] == reason
    value = re.search("203.0.113.77|" + SECRET, page.text.replace("/" + reason, ""))
    assert value is None, page.text
