"""The databroker alone, and clients of every role written from the wire's description, not from our C code.

Broker    one postern-databroker with a store of its own
Identity  certificates of the internal CA, and tokens, made from the shared secret
stubs()   Python classes made from proto/
status()  how a call ended
"""

import base64
import datetime
import hashlib
import hmac
import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import uuid
import weakref

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID
from foreign import channel as foreign_channel
from foreign import messages
from sanitize import ANSWER_S, PATIENCE, assert_clean
from trial import BIN, ROOT, free_port, wait_for, why_unready

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ROLES = ("proxy", "authorize", "authenticate", "databroker", "cli")
TOKENS = {"session-admin": 1, "reader": 2, "checker": 4, "record-writer": 5, "directory-writer": 6, "config-writer": 7}


def stubs():
    """Messages by their file, and the services' stubs."""
    made = messages("databroker", "session", "user", "replica")
    return {**{name: pb for name, (pb, _) in made.items()}, "rpc": made["databroker"][1], "replica_rpc": made["replica"][1]}


def status(call):
    """How a call ended."""
    try:
        call()
    except grpc.RpcError as e:
        return e.code()
    return grpc.StatusCode.OK


class Identity:
    def __init__(self, secret):
        self.secret = secret
        scalar = int.from_bytes(self.derive("postern internal ca 1", 48), "big") % (ORDER - 1) + 1
        self.ca_key = ec.derive_private_key(scalar, ec.SECP256R1())
        self.id = self.derive("postern key id 1", 1)[0]
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Postern internal CA {self.id:02x}")])
        self.ca = self.sign(self.name, self.ca_key.public_key(), [
            (x509.BasicConstraints(ca=True, path_length=0), True), (self.usage(key_cert_sign=True), True),
            (x509.SubjectKeyIdentifier.from_public_key(self.ca_key.public_key()), False)])

    def derive(self, label, n):
        return HKDF(hashes.SHA256(), n, None, label.encode()).derive(self.secret)

    @staticmethod
    def usage(**on):
        names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
                 "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
        return x509.KeyUsage(**{n: on.get(n, False) for n in names})

    def sign(self, subject, public_key, extensions, issuer_key=None):
        now = datetime.datetime.utcnow()
        b = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public_key)
        b = b.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
        b = b.not_valid_after(now + datetime.timedelta(hours=1))
        for extension, critical in extensions:
            b = b.add_extension(extension, critical)
        return b.sign(issuer_key or self.ca_key, hashes.SHA256())

    def credentials(self, role=None, uri=None, issuer_key=None):
        ca = self.ca.public_bytes(serialization.Encoding.PEM)
        if role is None:
            return grpc.ssl_channel_credentials(ca)
        key = ec.generate_private_key(ec.SECP256R1())
        san = [x509.UniformResourceIdentifier(uri or f"spiffe://postern/{role}"), x509.DNSName(f"{role}.postern.internal")]
        cert = self.sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)]), key.public_key(), [
            (x509.BasicConstraints(ca=False, path_length=None), True), (self.usage(digital_signature=True), True),
            (x509.SubjectAlternativeName(san), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key()), False)], issuer_key)
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return grpc.ssl_channel_credentials(ca, pem, cert.public_bytes(serialization.Encoding.PEM))

    def proof(self, role, server):
        """Who calls, on a unix socket (common/rpc/proof.h), as metadata."""
        body = bytes([1, self.id, 1 + ROLES.index(role), 1 + ROLES.index(server)]) + struct.pack(">Q", int(time.time()) + 3600)
        wire = body + hmac.new(self.derive("postern unix proof 1", 32), body, hashlib.sha256).digest()
        return [("authorization", "Postern " + base64.urlsafe_b64encode(wire).decode().rstrip("="))]

    def handle(self, session, host):
        """What a login leaves in the browser (common/crypto/handle.h), for a cookie at host."""
        head, nonce, name = bytes([1, self.id]), os.urandom(12), session.encode()
        plain = struct.pack(">QQB", 0, int(time.time()), len(name)) + name
        sealed = AESGCM(self.derive("postern session handle 1", 32)).encrypt(nonce, plain, head + host.encode())
        return base64.urlsafe_b64encode(head + nonce + sealed).decode().rstrip("=")

    def token(self, role, ttl=3600):
        body = bytes([1, self.id, TOKENS[role]]) + struct.pack(">Q", int(time.time()) + ttl) + str(uuid.uuid4()).encode()
        wire = body + hmac.new(self.derive("postern client token 1", 32), body, hashlib.sha256).digest()
        return "postern_" + base64.urlsafe_b64encode(wire).decode().rstrip("=")


class Broker:
    def __init__(self, storage="sqlite", folder=None, target=None, secret=None, address=None, settings="", node=None, file=None):
        """target: a connection string, for postgres. secret: of another databroker on the same database. address: "unix" for a
        socket; certificates are there over TCP alone. node: where it lives, else on loopback (namespaces.py)."""
        self.folder = folder or tempfile.mkdtemp(prefix="postern-broker-")
        if folder is None:  # ours: it goes with the last one who may want to look at it
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.secret = secret or os.urandom(32)
        self.identity = Identity(self.secret)
        self.argv = node.argv if node else lambda *argv: list(argv)
        host = node.address if node else "127.0.0.1"
        self.address = f"unix:{self.folder}/databroker.sock" if address == "unix" else f"{host}:{free_port()}"
        self.file = file or os.path.join(self.folder, "databroker.sqlite")
        self.env, self.wrap = {}, []  # what else its program starts with, and by which
        self.config = os.path.join(self.folder, "config.yaml")
        with open(self.config, "w") as f:
            f.write(f"shared_secret: {base64.b64encode(self.secret).decode()}\ndatabroker_storage_type: {storage}\n"
                    f"databroker_storage_connection_string: {target or self.file}\ngrpc_address: {self.address}\n"
                    f"health_check_addr: unix:{self.folder}/health.sock\n{settings}")
        self.process = None

    def start(self, seconds=20):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            argv = self.argv(*self.wrap, os.path.join(BIN, "postern-databroker"), "--config", self.config)
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=self.folder, env={**os.environ, **self.env})
        wait_for("the databroker to be ready", self.is_ready, seconds)
        return self

    def log(self):
        with open(os.path.join(self.folder, "log"), errors="replace") as f:
            return f.read()

    def events(self, name):
        lines = [json.loads(x) for x in self.log().splitlines() if x.startswith("{")]
        return [x for x in lines if x["event"] == name]

    def is_ready(self):
        return self.why() is None

    def why(self):
        """What /readyz says: None when ready."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the databroker ended with {self.process.returncode}:\n{self.log()[-3000:]}")
        return why_unready(self.folder + "/health.sock")

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait(20 * PATIENCE)
        assert_clean([os.path.join(self.folder, "log")])
        return code

    def client(self, role=None, **kwargs):
        """(stub, metadata): role of a daemon by certificate, of a token by token, None: nobody."""
        channel, metadata = self.channel(role, **kwargs)
        return stubs()["rpc"].DataBrokerServiceStub(channel), metadata

    def channel(self, role=None, **kwargs):
        token = [("authorization", "Bearer " + self.identity.token(role))] if role in TOKENS else []
        if self.address.startswith("unix:"):
            proof = self.identity.proof(role, "databroker") if role in ROLES else []
            return grpc.insecure_channel(self.address, [("grpc.enable_http_proxy", 0)]), token + proof
        certificate = role if role in ROLES else None
        channel = grpc.secure_channel(self.address, self.identity.credentials(certificate, **kwargs),
                                      [("grpc.ssl_target_name_override", "databroker.postern.internal"),
                                       ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)])
        return channel, token


def of_each_storage(request):
    """What a fixture with storages as its params yields; it must end cleanly."""
    target = request.getfixturevalue("postgres").target if request.param == "postgres" else None
    b = Broker(storage=request.param, target=target).start()
    yield b
    code = b.stop()
    assert code == 0, b.log()[-2000:]


def age_sessions(stand, seconds):
    pb, identity = stubs()["databroker"], Identity(base64.b64decode(stand.secret))
    api = stubs()["rpc"].DataBrokerServiceStub(foreign_channel(stand, "databroker"))
    found = api.Query(pb.QueryRequest(type="type.googleapis.com/session.Session", limit=1000), timeout=ANSWER_S,
                      metadata=[("authorization", "Bearer " + identity.token("reader"))])
    for record in found.records:
        s = stubs()["session"].Session()
        assert record.data.Unpack(s) and s.authenticated_at.seconds > 0
        s.authenticated_at.seconds -= seconds
        record.data.Pack(s)
    api.Put(pb.PutRequest(records=found.records), metadata=identity.proof("authenticate", "databroker"), timeout=ANSWER_S)
