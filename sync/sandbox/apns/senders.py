"""Senders' TLS certificates: an authority for them, what theirs say as Apple's do, and why one is refused.

Apple's certificates name the app in UID, the environments by the extensions 1.2.840.113635.100.6.3.1 (sandbox) and .2
(production), and several topics in .6: each topic, then the sequence of its kinds. A certificate of another authority,
or one that is over, does not get through the TLS handshake.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from sync.sandbox.apns.certificates import (
    Authority,
    builder,
    certificate_pem,
    key_pem,
    new_authority,
    new_key,
    usable,
    write,
)
from sync.sandbox.apns.rules import Refusal

_TOPICS = ObjectIdentifier("1.2.840.113635.100.6.3.6")
_NULL, _SEQUENCE, _UTF8 = b"\x05\x00", 0x30, 0x0C  # DER
_BAD = Refusal(status=403, reason="BadCertificate")
_OTHER_ENVIRONMENT = Refusal(status=403, reason="BadCertificateEnvironment")
_DISALLOWED = Refusal(status=400, reason="TopicDisallowed")


class Environment(StrEnum):
    """APNs' two worlds."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


_EXTENSION = {
    Environment.SANDBOX: ObjectIdentifier("1.2.840.113635.100.6.3.1"),
    Environment.PRODUCTION: ObjectIdentifier("1.2.840.113635.100.6.3.2"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A certificate to make. `topics` None: those that Apple gives an app; one topic that is the app's name: none is
    written, as in Apple's older certificates.
    """

    app: str
    topics: tuple[str, ...] | None = None
    environments: tuple[Environment, ...] = (Environment.SANDBOX, Environment.PRODUCTION)
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """What a certificate says of who shows it. No topic: it is no push certificate."""

    topics: tuple[str, ...]
    environments: tuple[Environment, ...]
    serial: int

    @property
    def only_topic(self) -> str | None:
        """The topic of a request that names none."""
        return self.topics[0] if len(self.topics) == 1 else None

    def refusal(self, topic: str | None) -> Refusal | None:
        """Why this sender may not push to this topic, or None."""
        return _DISALLOWED if topic and topic not in self.topics else None


class Senders:
    """The authority of the certificates that senders show; `ca` is its own. Kept in `directory` with its key."""

    def __init__(self, directory: Path, environment: Environment) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.ca, self._key = directory / "senders-ca.pem", directory / "senders-ca.key"
        self._directory, self._environment = directory, environment
        self._authority = self._kept()
        self._revoked: set[int] = set()

    def forget(self) -> None:
        """Nothing is revoked."""
        self._revoked.clear()

    def file(self, app: str) -> Path:
        """The certificate of this app with its key, PEM; made when missing or about to expire, or of another CA."""
        path = self._directory / f"certificate-{app}.pem"
        if not (usable(path) and self._own(path)):
            write(path, self.issue(Wanted(app=app)))
        return path

    def issue(self, wanted: Wanted) -> bytes:
        """A new certificate and its key, one PEM text."""
        key = new_key()
        name = [(NameOID.USER_ID, wanted.app), (NameOID.COMMON_NAME, f"Apple Push Services: {wanted.app}"[:64])]
        subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in name])
        draft = builder(subject, key.public_key()).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        for environment in wanted.environments:
            draft = draft.add_extension(x509.UnrecognizedExtension(_EXTENSION[environment], _NULL), critical=False)
        topics = wanted.topics
        if topics is None:
            topics = (wanted.app, f"{wanted.app}.voip", f"{wanted.app}.complication")
        if topics != (wanted.app,):
            draft = draft.add_extension(x509.UnrecognizedExtension(_TOPICS, _encoded(topics)), critical=False)
        certificate = self._authority.issue(draft)
        if wanted.revoked:
            self._revoked.add(certificate.serial_number)
        return certificate_pem(certificate) + key_pem(key)

    def refusal(self, sender: Sender) -> Refusal | None:
        """Why this certificate is not accepted, or None."""
        if not sender.topics or sender.serial in self._revoked:
            return _BAD
        return None if self._environment in sender.environments else _OTHER_ENVIRONMENT

    def _kept(self) -> Authority:
        if not usable(self.ca, self._key):
            new = new_authority("Convsync sandbox senders")
            write(self._key, key_pem(new.key))
            write(self.ca, certificate_pem(new.certificate))
            return new
        key = serialization.load_pem_private_key(self._key.read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - written above
        return Authority(key=key, certificate=x509.load_pem_x509_certificate(self.ca.read_bytes()))

    def _own(self, path: Path) -> bool:
        return x509.load_pem_x509_certificate(path.read_bytes()).issuer == self._authority.certificate.subject


def read(der: bytes) -> Sender:
    """What this certificate says."""
    certificate = x509.load_der_x509_certificate(der)
    found = {one.oid: one.value for one in certificate.extensions}
    uid = tuple(str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.USER_ID))
    listed = found.get(_TOPICS)
    return Sender(
        topics=_decoded(listed.value) if isinstance(listed, x509.UnrecognizedExtension) else uid,
        environments=tuple(environment for environment, oid in _EXTENSION.items() if oid in found),
        serial=certificate.serial_number,
    )


def _encoded(topics: Sequence[str]) -> bytes:
    content = b""
    for topic in topics:
        kind = topic.rpartition(".")[2] if topic.endswith((".voip", ".complication")) else "app"
        content += _der(_UTF8, topic.encode()) + _der(_SEQUENCE, _der(_UTF8, kind.encode()))
    return _der(_SEQUENCE, content)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = size.to_bytes((size.bit_length() + 7) // 8 or 1, "big")
    return bytes([tag]) + (length if size < 128 else bytes([0x80 | len(length)]) + length) + content


def _decoded(value: bytes) -> tuple[str, ...]:
    """The topics: the texts among the outer sequence's members."""
    _, inner, _ = _first(value)
    topics = []
    while inner:
        tag, content, inner = _first(inner)
        if tag == _UTF8:
            topics.append(content.decode())
    return tuple(topics)


def _first(value: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first DER value, and what is behind it."""
    at, size = 2, value[1]
    if size & 0x80:
        at, size = 2 + (size & 0x7F), int.from_bytes(value[2 : 2 + (size & 0x7F)], "big")
    return value[0], value[at : at + size], value[at + size :]
