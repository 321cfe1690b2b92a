"""The certificate of an app, by which Apple knows us where there is no signing key: a `.p12` as the Keychain exports
it, or a PEM with certificate and key.

It reads and checks, and puts the certificate into a TLS context. When to renew it is for people.
"""

import re
import secrets
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\s*", re.DOTALL)
# What a TLS server says when it is the certificate that it does not like (RFC 8446 §6.2), in OpenSSL's words.
_REFUSED = re.compile(r"_ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA|ACCESS_DENIED)$")


class BadClientCertificate(ValueError):
    """It cannot be used; the text says why, and holds nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """`names`: what the certificate is issued to, most of it the bundle id. `until`: when it expires."""

    names: tuple[str, ...]
    until: datetime
    pem: bytes = field(repr=False)  # the key, encrypted, then the chain
    password: bytes = field(repr=False)

    def into(self, context: ssl.SSLContext) -> None:
        """Show it to every server. OpenSSL reads files only: this one lives for a moment, its key encrypted."""
        with NamedTemporaryFile(prefix="convsync-", suffix=".pem") as file:
            file.write(self.pem)
            file.flush()
            context.load_cert_chain(file.name, password=self.password)


def read_certificate(file: Path, password: str | None) -> ClientCertificate:
    """The certificate in a file. Raises BadClientCertificate."""
    try:
        data = file.read_bytes()
    except OSError as wrong:
        raise BadClientCertificate(f"it cannot be read: {wrong.strerror}") from None
    secret = password.encode() if password else None
    try:
        key, chain = _pem(data, secret) if b"-----BEGIN " in data else _p12(data, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadClientCertificate("no certificate and key can be read from it, or the password is wrong") from None
    if not chain or not isinstance(key, EllipticCurvePrivateKey | RSAPrivateKey):
        raise BadClientCertificate("it has no certificate with a private key")
    if key.public_key() != chain[0].public_key():
        raise BadClientCertificate("its key is not that of its first certificate")
    inside = secrets.token_hex(16).encode()
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(inside))
    return ClientCertificate(
        names=tuple(str(name.value) for name in chain[0].subject),
        until=chain[0].not_valid_after_utc,
        pem=sealed + b"".join(one.public_bytes(Encoding.PEM) for one in chain),
        password=inside,
    )


def certificate_refused(wrong: BaseException | None) -> bool:
    """True where the other side ended TLS because of our certificate, or for want of one."""
    return isinstance(wrong, ssl.SSLError) and _REFUSED.search(getattr(wrong, "reason", None) or "") is not None


def _pem(data: bytes, password: bytes | None) -> tuple[object, list[x509.Certificate]]:
    chain = x509.load_pem_x509_certificates(data)
    key = _KEY.search(data)
    return (load_pem_private_key(key[0], password) if key is not None else None), chain


def _p12(data: bytes, password: bytes | None) -> tuple[object, list[x509.Certificate]]:
    key, certificate, others = pkcs12.load_key_and_certificates(data, password)
    return key, [certificate, *others] if certificate is not None else []
