"""Certificate authorities and certificates for loopback, made once and kept.

`ca.pem` is what a client must trust. They are kept because a client that was started with `ca.pem` must go on
trusting a restarted server. Nothing here is fit for anything but loopback: names are fixed, and the server's
authority's key is thrown away.
"""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Files: `ca` for clients, `chain` and `key` for the server."""

    ca: Path
    chain: Path
    key: Path

    def server_context(self, senders: Path | None = None) -> ssl.SSLContext:
        """TLS ≥ 1.2 with ALPN h2, as PUSH §2 has it of APNs. `senders`: the authority of certificates that senders
        may show.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.chain, self.key)
        context.set_alpn_protocols(["h2"])
        if senders is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(senders)
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Signs certificates with `key`; its own is `certificate`."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def issue(self, wanted: x509.CertificateBuilder) -> x509.Certificate:
        """This certificate, signed."""
        public = self.certificate.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)  # noqa: S101 - `new_authority` makes no other
        return (
            wanted.issuer_name(self.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def ensure(directory: Path) -> Certificates:
    """The certificates in this directory; made when missing or about to expire."""
    directory.mkdir(parents=True, exist_ok=True)
    files = Certificates(ca=directory / "ca.pem", chain=directory / "server.pem", key=directory / "server.key")
    if not usable(files.chain, files.ca, files.key):
        _make(files)
    return files


def usable(certificate: Path, *others: Path) -> bool:
    """Whether these files are there, and the certificate in the first does not end soon."""
    if not all(path.exists() for path in (certificate, *others)):
        return False
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    return found.not_valid_after_utc - datetime.now(UTC) > _RENEW_BEFORE


def builder(subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    """What every certificate has; issuer and usage are missing."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def named(common_name: str) -> x509.Name:
    """A name that has nothing but this."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def new_key() -> ec.EllipticCurvePrivateKey:
    """A P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def new_authority(title: str) -> Authority:
    """Another name each time, so that a stale certificate is not taken for this one's."""
    key = new_key()
    subject = named(f"{title} {x509.random_serial_number():x}"[:40])
    certificate = (
        builder(subject, key.public_key())
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(key=key, certificate=certificate)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """As a file holds it."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """As a file holds it, without a password."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def write(path: Path, content: bytes) -> None:
    """Whole or not at all, for the owner's eyes: a client may be reading."""
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=0o600)
    draft.write_bytes(content)
    draft.replace(path)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _make(files: Certificates) -> None:
    authority, key = new_authority("Convsync sandbox CA"), new_key()
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    wanted = (
        builder(named("localhost"), key.public_key())
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    write(files.key, key_pem(key))
    write(files.chain, certificate_pem(authority.issue(wanted)))
    write(files.ca, certificate_pem(authority.certificate))
