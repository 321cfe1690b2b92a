"""Tokens of our own dialect's deltas, as clients keep them (docs/protocol.md).

Opaque to clients, url-safe text of at most 128 characters: a check over account and content, an octet that says what
follows, then the numbers, those left out that say nothing. The check is no secret, as in `cursor`: it refuses what was
cut, altered or given to another account. Whether the token is still good is for the service to say, which answers with
a new beginning; what is no token of this account is `bad-request`.
"""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

from sync.model.delta import DeltaToken
from sync.model.errors import BadRequest

MAX_CHARS = 128
_VERSION = 0x10  # the upper half of the octet; the lower one says which parts follow
_FILTERS, _LOG, _PAGE = 1, 2, 4
_HEAD = struct.Struct(">Iq")  # epoch, since
_NUMBER, _PLACE = struct.Struct(">q"), struct.Struct(">qq")  # log; newest, low
_CHECK_BYTES, _FILTERS_BYTES = 8, 8
_REFUSAL = "'token' is none of this account's."


def encode_token(token: DeltaToken, *, account: str) -> str:
    """The token as text, for this account only."""
    parts, content = _VERSION, _HEAD.pack(token.epoch, token.since)
    if token.filters:
        parts, content = parts | _FILTERS, content + token.filters
    if token.log != token.since:
        parts, content = parts | _LOG, content + _NUMBER.pack(token.log)
    if token.low is not None:
        parts, content = parts | _PAGE, content + _PLACE.pack(token.newest, token.low)
    content = bytes([parts]) + content
    check = sha256(account.encode() + b"\0" + content).digest()[:_CHECK_BYTES]
    return urlsafe_b64encode(check + content).rstrip(b"=").decode()


def decode_token(text: str, *, account: str) -> DeltaToken:
    """The token that `encode_token` made for this account; anything else is BadRequest."""
    if not text or len(text) > MAX_CHARS or not text.isascii():
        raise BadRequest(_REFUSAL)
    try:
        token = _read(urlsafe_b64decode(text + "=" * (-len(text) % 4))[_CHECK_BYTES:])
    except (ValueError, IndexError, struct.error):
        raise BadRequest(_REFUSAL) from None
    # Version, check, order of the numbers and spelling (base64 has several of the same octets) in one comparison.
    if not 0 <= token.log <= token.since or encode_token(token, account=account) != text:
        raise BadRequest(_REFUSAL)
    return token


def _read(content: bytes) -> DeltaToken:
    parts, place = content[0], 1 + _HEAD.size
    epoch, since = _HEAD.unpack(content[1:place])
    filters, log, newest, low = b"", since, 0, None
    if parts & _FILTERS:
        filters, place = content[place : place + _FILTERS_BYTES], place + _FILTERS_BYTES
        if len(filters) < _FILTERS_BYTES:
            raise ValueError
    if parts & _LOG:
        (log,), place = _NUMBER.unpack(content[place : place + _NUMBER.size]), place + _NUMBER.size
    if parts & _PAGE:
        newest, low = _PLACE.unpack(content[place:])
        if not since < low <= newest:
            raise ValueError
    return DeltaToken(epoch=epoch, filters=filters, since=since, log=log, newest=newest, low=low)
