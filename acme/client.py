#!/usr/bin/python3 -I
"""One certificate from an ACME server (RFC 8555), by way of certbot's library, python3-acme.

postern-acme starts this program for each order. The order is a JSON object on standard input, which is the
only place where its secrets are; the last line on standard output is how it went:

    {"result": "issued"}
    {"result": "refused" | "limited" | "busy", "error": "one sentence"}

busy: the server could not be asked, which costs nothing there. limited: it asks for less. refused: the rest.
Files are written whole or not at all, with 0600.
"""

import datetime
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time

import josepy
import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

OPEN_S = 2.0  # every proxy looks for challenges twice a second
ORDER_S = 180
GIVE_UP_S = 240  # whatever hangs
REPLY_S = 30
NONCE_TRIES = 4  # two requests each
TEXT_MAX = 400
MEMORY_MAX = 512 * 1024 * 1024

ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
SOON = ("badNonce", "serverInternal")  # the server's own trouble


class Failed(Exception):
    """How the order ended: result, sentence."""


def write_private(path, data):
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=folder, prefix=".new-")  # 0600
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.rename(name, path)
    except BaseException:
        os.unlink(name)
        raise
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def private_pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class Network(client.ClientNetwork):
    """Takes a fresh nonce as often as a server with several front ends may need (RFC 8555 section 6.5); the
    library asks twice."""

    def post(self, *args, **kwargs):
        for _ in range(NONCE_TRIES - 1):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as e:
                if e.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)


# --- the account -------------------------------------------------------------------------------------


def account_key(folder):
    path = os.path.join(folder, "key.pem")
    if not os.path.exists(path):
        write_private(path, private_pem(ec.generate_private_key(ec.SECP256R1())))
    with open(path, "rb") as f:
        return josepy.JWKEC(key=serialization.load_pem_private_key(f.read(), None))


def register(acme, order, key):
    """A new account, or the one that the server knows this key by."""
    binding = None
    if order["eab_key_id"]:
        binding = messages.ExternalAccountBinding.from_data(
            key.public_key(), order["eab_key_id"], order["eab_mac_key"], acme.directory)
    elif acme.external_account_required():
        raise Failed("refused", "the server wants an external account: set autocert_eab_key_id and autocert_eab_mac_key")
    try:
        return acme.new_account(messages.NewRegistration.from_data(
            email=order["email"] or None, terms_of_service_agreed=True, external_account_binding=binding))
    except errors.ConflictError as known:
        return acme.query_registration(messages.RegistrationResource(
            uri=known.location, body=messages.Registration()))


def log_in(acme, order, key):
    path = os.path.join(order["accounts"], "account.json")
    try:
        with open(path, encoding="utf-8") as f:
            kept = json.load(f)
        registration = messages.RegistrationResource(uri=kept["uri"], body=messages.Registration())
        acme.net.account = registration
        if kept["email"] == order["email"]:
            return
        contact = {"email": order["email"]} if order["email"] else {"contact": ()}
        acme.update_registration(registration.update(body=messages.Registration.from_data(**contact)))
    except FileNotFoundError:
        registration = register(acme, order, key)
        acme.net.account = registration
    write_private(path, json.dumps({"uri": registration.uri, "email": order["email"]}).encode())


def connect(order, trusted):
    """A client of the server that knows its account, and the account's key."""
    key = account_key(order["accounts"])
    verify = True
    if order["trusted_ca"]:
        trusted.write(order["trusted_ca"].encode())
        trusted.flush()
        verify = trusted.name
    net = Network(key, alg=josepy.ES256, verify_ssl=verify, timeout=REPLY_S, user_agent=order["agent"])
    acme = client.ClientV2(client.ClientV2.get_directory(order["directory"], net), net)
    log_in(acme, order, key)
    return acme, key


# --- the order ---------------------------------------------------------------------------------------


def clear_challenges(order):
    """Only one order runs at a time: what is there before it was left by one that was killed."""
    for kind in ("http-01", "tls-alpn-01"):
        path = os.path.join(order["dir"], "challenges", kind)
        os.makedirs(path, mode=0o700, exist_ok=True)
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))


def open_challenge(order, body, key):
    """Puts the answer where every proxy finds it; returns what the server is to be told."""
    folder = os.path.join(order["dir"], "challenges", body.typ)
    response = body.chall.response(key)
    if isinstance(body.chall, challenges.TLSALPN01):
        write_private(os.path.join(folder, order["host"] + ".pem"), alpn_certificate(order["host"], response.h))
    else:
        write_private(os.path.join(folder, body.chall.encode("token")), body.chall.validation(key).encode())
    return response


def alpn_certificate(host, digest):
    """RFC 8737 section 3, with its key. The library's own has the extension of a draft."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    now = datetime.datetime.utcnow()
    octets = b"\x04" + bytes([len(digest)]) + digest  # OCTET STRING
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.UnrecognizedExtension(ACME_IDENTIFIER, octets), critical=True)
        .sign(private, hashes.SHA256()))
    return certificate.public_bytes(serialization.Encoding.PEM) + private_pem(private)


def wanted(order, authorization):
    for body in authorization.body.challenges:
        if body.typ == order["type"]:
            return body
    offered = ", ".join(sorted(body.typ for body in authorization.body.challenges))
    raise Failed("refused", f"the server offers no {order['type']} for this name, only {offered}")


def prove(acme, order, asked, key):
    answers = []
    for authorization in asked.authorizations:
        if authorization.body.status == messages.STATUS_PENDING:
            body = wanted(order, authorization)
            answers.append((body, open_challenge(order, body, key)))
    if answers:
        time.sleep(OPEN_S)
    for body, response in answers:
        acme.answer_challenge(body, response)


def issue(acme, order, key):
    private = ec.generate_private_key(ec.SECP256R1())
    deadline = datetime.datetime.now() + datetime.timedelta(seconds=ORDER_S)
    asked = acme.new_order(crypto_util.make_csr(private_pem(private), [order["host"]]))
    clear_challenges(order)
    try:
        prove(acme, order, asked, key)
        chain = acme.poll_and_finalize(asked, deadline).fullchain_pem
    finally:
        clear_challenges(order)
    write_private(os.path.join(order["certificates"], order["host"] + ".pem"),
                  checked(chain, order["host"], private) + private_pem(private))


def checked(chain, host, private):
    """The certificates of chain and nothing else; the first one is for host and our key."""
    found = [x509.load_pem_x509_certificate(block.encode()) for block in
             re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", chain, re.S)]
    if not found or found[0].public_key().public_numbers() != private.public_key().public_numbers():
        raise Failed("refused", "the server's certificate is not for our key")
    names = found[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if host not in [name.lower() for name in names.get_values_for_type(x509.DNSName)]:
        raise Failed("refused", "the server's certificate is for another name")
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in found)


# --- how it went -------------------------------------------------------------------------------------


def causes(failed):
    """What the server said about challenges that it did not accept."""
    return "; ".join(f"{body.typ}: {body.error.detail or body.error.typ}" for authorization in failed.failed_authzrs
                     for body in authorization.body.challenges if body.error) or "the server did not say why"


def run(order):
    # No context manager of contextlib here: it sets an attribute of what is raised, and the library's errors
    # cannot be changed.
    with tempfile.NamedTemporaryFile(prefix="postern-ca-") as trusted:
        acme, key = connect(order, trusted)
        try:
            issue(acme, order, key)
        except messages.Error as e:
            if e.code != "accountDoesNotExist":
                raise
            os.unlink(os.path.join(order["accounts"], "account.json"))
            raise Failed("busy", "the server has forgotten our account; a new one will be made") from e


def outcome(order):
    try:
        run(order)
        return {"result": "issued"}
    except Failed as e:
        result, text = e.args
    except errors.ValidationError as e:
        result, text = "refused", causes(e)
    except messages.Error as e:
        result = "limited" if e.code == "rateLimited" else "busy" if e.code in SOON else "refused"
        text = f"{e.code or e.typ}: {e.detail or e.description}"
    except errors.TimeoutError:
        result, text = "refused", "the server did not come to an end in time"
    except requests.RequestException as e:
        result, text = "busy", f"the server cannot be reached: {e}"
    except OSError as e:
        result, text = "busy", f"{e.strerror}: {e.filename}"
    except (RecursionError, MemoryError):
        result, text = "refused", "the server's answer is too large"
    except (errors.Error, josepy.Error, ValueError, KeyError, TypeError, AttributeError) as e:
        result = "busy" if str(e).startswith("Requesting ") else "refused"  # the library's word for no connection
        text = f"the server's answer makes no sense: {e}" if result == "refused" else str(e)
    return {"result": result, "error": " ".join(text.split())[:TEXT_MAX]}


def main():
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))  # answers have no bound of their own
    signal.alarm(GIVE_UP_S)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # challenges are taken out on the way
    print(json.dumps(outcome(json.load(sys.stdin))), flush=True)


if __name__ == "__main__":
    main()
