"""An OpenID provider that we did not write, and people who log in there.

Provider          the process; `settings` until it starts: accounts, algorithm, life of its tokens
provider_modules  fetched when first needed
login             a person in a new browser, from a page of ours to the provider's forms and back
"""

import json
import os
import subprocess
import tempfile

import requests
from stand import make_certificate
from trial import ROOT, free_port, wait_for

MAIL, PASSWORD = "dana@example.com", "dana-password"
SUPPORT = os.path.join(ROOT, "test", "support")


def provider_modules():
    return subprocess.run([os.path.join(SUPPORT, "provider.sh")], capture_output=True, text=True, check=True,
                          timeout=300).stdout.strip()


class Provider:
    def __init__(self, modules, authenticate, alg="RS256"):
        self.folder, self.port = tempfile.mkdtemp(prefix="postern-idp-"), free_port()
        self.issuer = f"https://idp.localhost:{self.port}"
        key, self.ca = make_certificate(self.folder, "idp.localhost")
        self.settings = {
            "modules": modules, "issuer": self.issuer, "port": self.port, "key": key, "cert": self.ca, "alg": alg,
            "redirect": authenticate + "/oauth2/callback", "logout": authenticate + "/.pomerium/signed_out",
            "secret": "client-secret-canary",
            "accounts": {"dana": {"email": MAIL, "email_verified": True, "name": "Dana", "groups": ["staff"]}}}
        self.process = None

    def our_settings(self):
        """YAML by which Postern logs people in here."""
        return (f"idp_provider: oidc\nidp_provider_url: {self.issuer}\nidp_client_id: postern\n"
                f"idp_client_secret: {self.settings['secret']}\nidp_ca_file: {self.ca}\n"
                "idp_scopes: [openid, email, profile, groups, offline_access]\n")

    def start(self):
        self.log = open(os.path.join(self.folder, "log"), "ab")
        self.process = subprocess.Popen(["node", os.path.join(SUPPORT, "provider.mjs"), json.dumps(self.settings)],
                                        stdout=self.log, stderr=self.log)
        wait_for("the provider", lambda: requests.get(self.issuer + "/.well-known/openid-configuration", verify=self.ca,
                                                      timeout=2).ok, 20)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def grants(self, result="ok"):
        """The refresh tokens that it was shown."""
        with open(os.path.join(self.folder, "log"), errors="replace") as f:
            lines = [json.loads(line) for line in f if line.startswith('{"grant"')]
        return [x for x in lines if x["grant"] == "refresh_token" and x["result"] == result]


def both_trust(browser, stand, provider):
    bundle = os.path.join(stand.folder, "both.pem")
    if not os.path.exists(bundle):
        with open(bundle + ".new", "w") as out:
            for ca in (stand.ca, provider.ca):
                with open(ca) as f:
                    out.write(f.read())
        os.rename(bundle + ".new", bundle)
    browser.session.verify = bundle
    return browser


def login(stand, provider, url, account="dana"):
    b = both_trust(stand.browser(), stand, provider)
    page = b.get(url)
    assert f"idp.localhost:{provider.port}" in page.url, (page.status_code, page.url, page.text[:1000])
    assert "code_challenge_method=S256" in " ".join(u for _, u in b.trail)
    page = b.submit(page, login=account, password=PASSWORD)
    if f"idp.localhost:{provider.port}" in page.url:  # consent
        page = b.submit(page)
    return b, page
