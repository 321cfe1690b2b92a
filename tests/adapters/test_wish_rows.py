"""Long lists of filters are read once."""

from dataclasses import replace

from sync.adapters.postgres.wish_rows import LONG, wishes, wishes_text
from sync.model.wishes import NO_WISHES, Allow, Encrypt, RoomWish, Wishes

LISTS = Wishes(
    muted=frozenset(f"bob{n}@example.net" for n in range(1000)),
    rooms=tuple(RoomWish(f"room{n}@rooms.example.org", Allow.MENTIONED, "Ann") for n in range(1000)),
)


def test_long_lists_are_read_once() -> None:
    text = wishes_text(LISTS)
    assert len(text) > LONG
    assert wishes(text, None) == LISTS
    assert wishes("".join(text), None) is wishes(text, None)


def test_a_key_is_no_part_of_the_text() -> None:
    keyed = [replace(LISTS, encrypt=Encrypt(3000, key)) for key in (b"one", b"other")]
    assert [wishes(wishes_text(one), one.encrypt.sealed_key) for one in keyed if one.encrypt] == keyed


def test_what_asks_for_nothing_is_one_value() -> None:
    assert wishes(wishes_text(Wishes()), None) is NO_WISHES
