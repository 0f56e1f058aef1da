"""A certificate authority of a test's own: roots, intermediates, leaves of any kind, lists of revoked ones, OCSP."""

import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def now():
    return datetime.datetime.utcnow().replace(microsecond=0)


def san(name):
    """An e-mail address, a URI, an IP address or a DNS name, by its looks."""
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    if "@" in name:
        return x509.RFC822Name(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Cert:
    """A certificate with its key; issuer None: signed by itself."""

    def __init__(self, folder, name, issuer=None, ca=False, sans=(), client=True, server=False, begins=-DAY, ends=DAY,
                 key=None, extensions=()):
        self.folder, self.name, self.issuer = folder, name, issuer
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (x509.CertificateBuilder().subject_name(self.subject)
                   .issuer_name(issuer.subject if issuer else self.subject)
                   .public_key(self.key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(now() + begins).not_valid_after(now() + ends)
                   .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
                   .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False))
        if ca:
            builder = builder.add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), True)
        else:
            usages = ([ExtendedKeyUsageOID.CLIENT_AUTH] if client else []) + ([ExtendedKeyUsageOID.SERVER_AUTH] if server else [])
            if usages:
                builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if sans:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([s if isinstance(s, x509.GeneralName) else san(s) for s in sans]), critical=False)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        self.cert = builder.sign((issuer or self).key, hashes.SHA256())
        self.revoked = []

    @property
    def pem(self):
        return self.cert.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self):
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                      serialization.NoEncryption()).decode()

    @property
    def fingerprint(self):
        return self.cert.fingerprint(hashes.SHA256()).hex()

    def chain(self):
        """The certificate and those above it, without the root."""
        text, at = "", self
        while at is not None and at.issuer is not None:
            text, at = text + at.pem, at.issuer
        return text or self.pem

    def files(self, chain=True):
        """(certificate file, key file), written anew."""
        cert, key = (write(self.folder, self.name + end, text) for end, text in
                     ((".crt", self.chain() if chain else self.pem), (".key", self.key_pem)))
        return cert, key

    def crl(self, ends=DAY, begins=-DAY):
        """This CA's list of what it revoked."""
        builder = (x509.CertificateRevocationListBuilder().issuer_name(self.subject)
                   .last_update(now() + begins).next_update(now() + ends))
        for cert in self.revoked:
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder()
                                                      .serial_number(cert.cert.serial_number).revocation_date(now() - DAY)
                                                      .build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def ocsp(self, cert, status=ocsp.OCSPCertStatus.GOOD, begins=-DAY, ends=DAY, signer=None):
        """This CA's response about cert, DER."""
        signer = signer or self
        revoked = status == ocsp.OCSPCertStatus.REVOKED
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=cert.cert, issuer=self.cert, algorithm=hashes.SHA1(), cert_status=status, this_update=now() + begins,
            next_update=now() + ends, revocation_time=now() - DAY if revoked else None, revocation_reason=None)
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer.cert)
        if signer is not self:
            builder = builder.certificates([signer.cert])
        return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def write(folder, name, data):
    """Writes a file at once, as everybody should who replaces a certificate."""
    path = os.path.join(folder, name)
    with open(path + ".new", "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    os.rename(path + ".new", path)
    return path
