"""Tokens: whatever is given out is read again, by its own account only, and nothing else is taken for one."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sync.model.conversation import Kind, Status
from sync.model.delta import DeltaToken, Filters
from sync.model.errors import BadRequest
from sync.protocol.token import MAX_CHARS, decode_token, encode_token

ANN, EVE = "ann@ex.org", "eve@ex.org"
MOST = 2**63 - 1
CHAIN = DeltaToken(epoch=3, filters=b"12345678", since=50, log=40, newest=90, low=70)
PLAIN = DeltaToken(epoch=1, since=1763688000000009, log=1763688000000009)
NOTHING = DeltaToken(epoch=1)


@st.composite
def tokens(draw: st.DrawFn) -> DeltaToken:
    numbers = sorted(draw(st.lists(st.integers(0, MOST), min_size=4, max_size=4, unique=True)))
    log, since, low, newest = numbers
    values = {"epoch": draw(st.integers(0, 2**31 - 1)), "since": since}
    values["log"] = draw(st.sampled_from([log, since]))
    if draw(st.booleans()):
        values |= {"newest": draw(st.sampled_from([low, newest])), "low": low}
    return DeltaToken(**values, filters=draw(st.sampled_from([b"", b"12345678"])))


@given(tokens(), st.text(max_size=40))
@example(CHAIN, ANN)
@example(PLAIN, ANN)
@example(NOTHING, ANN)
def test_what_is_given_out_is_read(token: DeltaToken, account: str) -> None:
    text = encode_token(token, account=account)
    assert len(text) <= MAX_CHARS
    assert decode_token(text, account=account) == token


def test_the_token_of_everything_is_short() -> None:
    assert len(encode_token(PLAIN, account=ANN)) == 28


@pytest.mark.parametrize("token", [CHAIN, PLAIN, NOTHING], ids=["chain", "plain", "nothing"])
def test_the_token_of_another_account_is_none(token: DeltaToken) -> None:
    with pytest.raises(BadRequest, match="'token'"):
        decode_token(encode_token(token, account=EVE), account=ANN)


@pytest.mark.parametrize("token", [CHAIN, PLAIN, NOTHING], ids=["chain", "plain", "nothing"])
def test_what_was_altered_is_none(token: DeltaToken) -> None:
    """Every character, what is cut, what is added, and other spellings of the same octets."""
    text = encode_token(token, account=ANN)
    altered = [text[:n] + ("B" if text[n] != "B" else "C") + text[n + 1 :] for n in range(len(text))]
    altered += [text[:n] for n in range(len(text))] + [text + more for more in ("A", "=", "==", " ", "\n", "AAAA")]
    altered += [" " + text, text.lower(), text + text]
    for wrong in altered:
        with pytest.raises(BadRequest, match="'token'"):
            decode_token(wrong, account=ANN)


@given(st.text(max_size=140) | st.binary(max_size=96).map(lambda data: urlsafe_b64encode(data).decode()))
@example("")
@example("A" * MAX_CHARS)
@example("A" * (MAX_CHARS + 1))
@example("é")
@example("\0")
@example("\ud800")
def test_whatever_else_is_none(text: str) -> None:
    with pytest.raises(BadRequest, match="'token'"):
        decode_token(text, account=ANN)


def forged(content: bytes) -> str:
    """With a good check: it is no secret."""
    return urlsafe_b64encode(sha256(ANN.encode() + b"\0" + content).digest()[:8] + content).rstrip(b"=").decode()


def numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "big", signed=True) for value in values)


HEAD = b"\0\0\0\1"
FORGED = {
    "negative": b"\x10" + HEAD + numbers(-1),
    "another version": b"\x20" + HEAD + numbers(5),
    "parts that nobody knows": b"\x18" + HEAD + numbers(5),
    "a log after the token": b"\x12" + HEAD + numbers(5, 6),
    "a log of the token": b"\x12" + HEAD + numbers(5, 5),
    "a negative log": b"\x12" + HEAD + numbers(5, -1),
    "shown what it knew": b"\x14" + HEAD + numbers(5, 9, 5),
    "shown what was not there": b"\x14" + HEAD + numbers(5, 9, 10),
    "filters cut off": b"\x11" + HEAD + numbers(5) + b"1234",
    "a place cut off": b"\x14" + HEAD + numbers(5, 9),
    "something behind": b"\x10" + HEAD + numbers(5) + b"x",
    "something behind a place": b"\x14" + HEAD + numbers(5, 9, 7) + b"x",
}


@pytest.mark.parametrize("content", FORGED.values(), ids=FORGED)
def test_what_cannot_be_is_none(content: bytes) -> None:
    with pytest.raises(BadRequest, match="'token'"):
        decode_token(forged(content), account=ANN)


def test_this_test_knows_how_to_forge() -> None:
    content = b"\x14" + HEAD + numbers(5, 9, 7)
    assert decode_token(forged(content), account=ANN) == DeltaToken(epoch=1, since=5, log=5, newest=9, low=7)
    text = encode_token(CHAIN, account=ANN)
    assert forged(urlsafe_b64decode(text + "=" * (-len(text) % 4))[8:]) == text


def test_filters_have_digests_of_their_own() -> None:
    chosen = [
        Filters(),
        *(Filters(peer=peer) for peer in ("a@b", "chat", "True", "None")),
        *(Filters(kind=kind) for kind in Kind),
        *(Filters(status=status) for status in Status),
        *(Filters(unread=flag) for flag in (True, False)),
        *(Filters(pinned=flag) for flag in (True, False)),
        Filters(unread=True, pinned=False),
        Filters(unread=False, pinned=True),
        Filters(peer="a@b", kind=Kind.CHAT),
    ]
    digests = {filters.digest for filters in chosen}
    assert len(digests) == len(chosen)
    assert {len(digest) for digest in digests} == {0, 8}
    assert Filters().digest == b""
