"""Secrets at rest: sealing what must be read again, digesting what must only be found again.

It decides the ciphers and which of the configured keys does what; where the results are stored it does not know.

Keys are Fernet keys, newest first. Sealing uses the first, opening tries all, so rotation is: put a new key in front,
seal everything again at leisure, then remove old keys. Digests are compared with stored ones, so they must not change
when a key is put in front: they are keyed by the **last** key. That key is the anchor. It stays last for as long as
digests made with it are stored; an operator who removes it must have every digest made again, from the opened values.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sync.model.errors import SealBroken

# Another key than Fernet's own two halves, though from the same secret: one key, one purpose.
_DIGEST_PURPOSE = b"convsync digest 1"


class Sealer:
    """`keys`: Fernet keys (32 bytes, URL-safe base64), newest first. Raises ValueError for none or a bad one."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise ValueError("at least one sealing key must be configured")
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            # Fernet's own message may not tell, and no message may quote a key.
            raise ValueError("a sealing key must be 32 bytes in URL-safe base64") from None
        anchor = base64.urlsafe_b64decode(keys[-1])
        self._digest_key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=_DIGEST_PURPOSE).derive(anchor)

    def seal(self, text: str) -> bytes:
        """`text`, encrypted and authenticated; another result each time."""
        return self._fernet.encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """What was sealed. Raises SealBroken."""
        try:
            return self._fernet.decrypt(sealed).decode()
        except InvalidToken:
            raise SealBroken(SealBroken.__doc__) from None

    def digest(self, text: str) -> bytes:
        """32 bytes, the same for the same text: to find a secret without storing it. HMAC-SHA256 (RFC 2104)."""
        return hmac.new(self._digest_key, text.encode(), hashlib.sha256).digest()
