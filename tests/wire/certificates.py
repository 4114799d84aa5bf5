"""Certificates of the tests' own, made while they run and kept for the session: authorities, server and client
certificates of every kind, OCSP responses, and the contexts of python's ssl that go with them.

    pki.ca ──issue("a.example")──▶ Certificate: .cert, .key (PEM files), .files (what the configuration wants)
"""
import base64
import datetime
import functools
import ipaddress
import pathlib
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def now():
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None, microsecond=0)


def private_key(kind):
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else rsa.generate_private_key(65537, 2048)


def pem_of(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())


def general(name):
    """"IP:::1", "URI:spiffe://a/b", "email:a@b"; else a DNS name."""
    kind, colon, value = name.partition(":")
    if colon and kind == "IP":
        return x509.IPAddress(ipaddress.ip_address(value))
    if colon and kind == "URI":
        return x509.UniformResourceIdentifier(value)
    if colon and kind == "email":
        return x509.RFC822Name(value)
    return x509.DNSName(name)


class Certificate:
    def __init__(self, directory, cert, key, chain=()):
        self.x509, self.private, self.directory = cert, key, directory
        self.cert, self.key = directory / "cert.pem", directory / "key.pem"
        directory.mkdir(parents=True)
        self.pem = cert.public_bytes(serialization.Encoding.PEM)
        self.cert.write_bytes(self.pem + b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain))
        self.key.write_bytes(pem_of(key))

    @property
    def der(self):
        return self.x509.public_bytes(serialization.Encoding.DER)

    @property
    def fingerprint(self):
        return self.x509.fingerprint(hashes.SHA256()).hex()

    @property
    def files(self):
        """An element of listeners[].tls.certificates."""
        return {"cert": str(self.cert), "key": str(self.key)}

    @property
    def spki_sha256(self):
        """Base64, as --ignore-certificate-errors-spki-list wants it."""
        digest = hashes.Hash(hashes.SHA256())
        digest.update(self.x509.public_key().public_bytes(serialization.Encoding.DER,
                                                          serialization.PublicFormat.SubjectPublicKeyInfo))
        return base64.b64encode(digest.finalize()).decode()


class Authority:
    """A CA, with one step between the root and what it issues when `issuer` is given."""

    def __init__(self, pki, name, kind="ecdsa", issuer=None):
        self.pki, self.name, self.issued = pki, name, {}
        key = private_key(kind)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert = (x509.CertificateBuilder().subject_name(subject)
                .issuer_name(issuer.x509.subject if issuer else subject).public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now() - 365 * DAY).not_valid_after(now() + 365 * DAY)
                .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
                .add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .sign(issuer.private if issuer else key, hashes.SHA256()))
        self.own = Certificate(pki.directory / name, cert, key)
        self.x509, self.private = cert, key
        self.chain = [cert, *issuer.chain] if issuer else []
        self.file = str(self.own.cert)

    def issue(self, *names, kind="ecdsa", common_name=None, begins=-DAY, ends=90 * DAY, client=False, **more):
        """The certificate of these names; the same each time it is asked for. begins and ends: from now."""
        wanted = (names, kind, common_name, begins, ends, client, *sorted(more.items()))
        if wanted not in self.issued:
            self.issued[wanted] = self.make(names, kind, common_name, begins, ends, client, **more)
        return self.issued[wanted]

    def make(self, names, kind, common_name, begins, ends, client, organisation=None, serial=None, key=None,
             must_staple=False):
        key = key or private_key(kind)
        attributes = [(NameOID.ORGANIZATION_NAME, organisation), (NameOID.COMMON_NAME, common_name or (names or [""])[0])]
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = (x509.CertificateBuilder()
                   .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes if value]))
                   .issuer_name(self.x509.subject).public_key(key.public_key())
                   .serial_number(serial or x509.random_serial_number())
                   .not_valid_before(now() + begins).not_valid_after(now() + ends)
                   .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                   .add_extension(x509.KeyUsage(True, False, kind == "rsa", False, False, False, False, False, False),
                                  critical=True)
                   .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
                   .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                   .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private.public_key()),
                                  critical=False)
                   .add_extension(x509.AuthorityInformationAccess([x509.AccessDescription(
                       AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://127.0.0.1:9/"))]),
                       critical=False))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([general(n) for n in names]), critical=False)
        if must_staple:
            builder = builder.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
        return Certificate(self.pki.directory / self.name / str(len(self.issued)), builder.sign(self.private, hashes.SHA256()),
                           key, self.chain)

    def ocsp(self, certificate, begins=-DAY, ends=7 * DAY, status=ocsp.OCSPCertStatus.GOOD):
        """A file with what this authority says about a certificate, in DER."""
        revoked = status == ocsp.OCSPCertStatus.REVOKED
        response = (ocsp.OCSPResponseBuilder()
                    .add_response(certificate.x509, self.x509, hashes.SHA1(), status, now() + begins, now() + ends,
                                  now() + begins if revoked else None, None)
                    .responder_id(ocsp.OCSPResponderEncoding.HASH, self.x509).sign(self.private, hashes.SHA256()))
        file = certificate.directory / f"ocsp-{len(list(certificate.directory.iterdir()))}.der"
        file.write_bytes(response.public_bytes(serialization.Encoding.DER))
        return str(file)


def strict_context(protocol):
    """One that tells an end from a cut: python takes the latter for the former."""
    context = ssl.SSLContext(protocol)
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 1 << 7)
    return context


class Pki:
    """Made at first use, each once."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)

    @functools.cached_property
    def ca(self):
        return Authority(self, "ca")

    @functools.cached_property
    def rsa_ca(self):
        return Authority(self, "rsa-ca", kind="rsa")

    @functools.cached_property
    def intermediate(self):
        """Issues below `ca`, and sends itself along."""
        return Authority(self, "intermediate", issuer=self.ca)

    @functools.cached_property
    def other(self):
        """Nobody trusts it."""
        return Authority(self, "other-ca")

    @functools.cached_property
    def clients(self):
        """Issues clients' certificates."""
        return Authority(self, "client-ca")

    def expired(self, *names, **more):
        return self.ca.issue(*names, begins=-30 * DAY, ends=-DAY, **more)

    def not_yet(self, *names, **more):
        return self.ca.issue(*names, begins=DAY, ends=30 * DAY, **more)

    def other_key(self, certificate):
        """Its certificate beside a key that is not its own."""
        return {"cert": str(certificate.cert), "key": str(self.other.issue("elsewhere.example").key)}

    def client_context(self, ca=None, alpn=None, certificate=None, version=None, check=True, ciphers=None):
        """What a careful client does. version: "1.2" or "1.3" alone."""
        context = strict_context(ssl.PROTOCOL_TLS_CLIENT)
        if check:
            context.load_verify_locations((ca or self.ca).file)
        else:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols(alpn)
        if certificate:
            context.load_cert_chain(certificate.cert, certificate.key)
        if version:
            one = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
            context.minimum_version = context.maximum_version = one
        if ciphers:
            context.set_ciphers(ciphers)
        return context

    def server_context(self, certificate, alpn=None, client_ca=None, version=None):
        context = strict_context(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        if alpn:
            context.set_alpn_protocols(alpn)
        if client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca.file)
        if version:
            one = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
            context.minimum_version = context.maximum_version = one
        return context
