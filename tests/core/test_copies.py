"""`replace` does what that of `dataclasses` does."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest

from sync.model import call, conversation, copies, device, event, room
from sync.model.conversation import Account, Conversation, ConversationKey
from tests.contract.samples import ANN, NOW

BOTH = (copies.replace, dataclasses.replace)
A_CONVERSATION = Conversation(key=ConversationKey(ANN, "bob@example.net"), version=5, activity_at=NOW, unread=2)


@dataclass(frozen=True, slots=True)
class Checked:
    """Refuses what cannot be."""

    one: int
    two: int = 0

    def __post_init__(self) -> None:
        if self.one < 0:
            raise ValueError


@dataclass(frozen=True)
class Open:
    """Without slots."""

    one: int
    two: int = 0


@dataclass(frozen=True, slots=True)
class Alone:
    """One field."""

    one: int


@dataclass(frozen=True, slots=True)
class Longer(Alone):
    """A field more than its parent."""

    two: int = 0


@pytest.mark.parametrize("value", [Checked(1, 2), Open(1, 2), Alone(1), Longer(1, 2), A_CONVERSATION], ids=str)
def test_a_copy_is_equal_and_another(value: Any) -> None:
    copy = copies.replace(value)
    assert copy == value
    assert copy is not value
    assert hash(copy) == hash(value)


@pytest.mark.parametrize("value", [Checked(1, 2), Open(1, 2), Alone(1), Longer(1, 2)], ids=str)
def test_a_field_is_changed_in_the_copy_only(value: Any) -> None:
    before = dataclasses.asdict(value)
    assert copies.replace(value, one=7) == dataclasses.replace(value, one=7)
    assert dataclasses.asdict(value) == before


def test_every_field_of_a_conversation_can_be_changed() -> None:
    for field in dataclasses.fields(Conversation):
        one, other = (replace(A_CONVERSATION, **{field.name: "changed"}) for replace in BOTH)  # type: ignore[arg-type]
        assert one == other
        assert one != A_CONVERSATION


@pytest.mark.parametrize("replace", BOTH)
@pytest.mark.parametrize("value", [Checked(1, 2), Open(1, 2), A_CONVERSATION], ids=str)
def test_an_unknown_field_is_refused(replace: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        replace(value, colour="red")


@pytest.mark.parametrize("replace", BOTH)
def test_what_a_value_refuses_is_refused(replace: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - it says nothing
        replace(Checked(1), one=-1)


def test_the_models_values_are_copied_slot_by_slot() -> None:
    for module in (call, conversation, device, event, room):
        for kind in vars(module).values():
            if isinstance(kind, type) and dataclasses.is_dataclass(kind) and len(dataclasses.fields(kind)) > 1:
                assert copies._learn(kind) is not None, kind  # type: ignore[attr-defined]
    assert copies._learn(Account) is not None  # type: ignore[attr-defined]
