"""AES-128-GCM for what a client alone may read (`tigase:push:encrypt:0`), with the key that the client made.

Nothing of ours is kept with it: secrets at rest are `sync.adapters.sealing`'s.
"""

import secrets

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sync.model.publish import Cipher

_IV_BYTES = 12  # NIST SP 800-38D §5.2.1.1: 96 bits are the fast and usual length; clients take what `iv` says


def aes_128_gcm(key: bytes, text: bytes) -> Cipher:
    """Encrypted under a new random vector, with a tag of 128 bits at the end. Raises ValueError for another length of
    key than 16 bytes.
    """
    if len(key) != 16:
        raise ValueError("AES-128 has keys of 16 bytes")
    iv = secrets.token_bytes(_IV_BYTES)
    return Cipher(iv, AESGCM(key).encrypt(iv, text, None))
