"""Sealing: what a rotation of keys must not break."""

import pytest
from cryptography.fernet import Fernet

from sync.adapters.sealing import Sealer
from sync.model.errors import SealBroken

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def test_what_was_sealed_opens_again() -> None:
    assert Sealer([OLD]).open(Sealer([OLD]).seal("geheim é")) == "geheim é"


def test_two_seals_of_one_text_differ_and_show_nothing() -> None:
    first, second = Sealer([OLD]).seal("geheim"), Sealer([OLD]).seal("geheim")
    assert first != second
    assert b"geheim" not in first + second


def test_a_new_key_in_front_opens_what_the_old_one_sealed_and_seals_itself() -> None:
    rotated = Sealer([NEW, OLD])
    assert rotated.open(Sealer([OLD]).seal("x")) == "x"
    assert Sealer([NEW]).open(rotated.seal("y")) == "y"


def test_a_value_that_no_key_opens_is_told_in_a_sentence_without_keys() -> None:
    with pytest.raises(SealBroken, match="No configured sealing key opens this value") as told:
        Sealer([NEW]).open(Sealer([OLD]).seal("x"))
    assert NEW not in str(told.value)


def test_a_damaged_value_does_not_open() -> None:
    with pytest.raises(SealBroken):
        Sealer([OLD]).open(b"damaged")


def test_a_digest_survives_a_new_key_in_front() -> None:
    assert Sealer([NEW, OLD]).digest("token") == Sealer([OLD]).digest("token")


def test_a_digest_is_32_bytes_and_depends_on_text_and_last_key() -> None:
    assert len(Sealer([OLD]).digest("token")) == 32
    assert Sealer([OLD]).digest("token") != Sealer([OLD]).digest("tokem")
    assert Sealer([OLD]).digest("token") != Sealer([OLD, NEW]).digest("token")


@pytest.mark.parametrize("keys", [[], ["short"], ["ä" * 44], [OLD, ""]])
def test_bad_keys_are_refused_without_being_quoted(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="sealing key") as told:
        Sealer(keys)
    assert not any(key and key in str(told.value) for key in keys)
