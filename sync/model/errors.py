"""Errors that a user or a peer is told about. Each class carries its XMPP condition, type and fixed text.

The text never comes from an exception or from the data that was refused: it goes over the wire. `application` names a
more specific condition of another namespace, as (local name, namespace), where a specification defines one.
"""

from typing import ClassVar
from xml.etree.ElementTree import Element


class RequestError(Exception):
    """The request cannot be answered as asked (RFC 6120 §8.3)."""

    condition: ClassVar[str] = "undefined-condition"
    type: ClassVar[str] = "cancel"
    text: str | None = None
    application: tuple[str, str] | None = None

    def __init__(self, text: str | None = None, *, application: tuple[str, str] | None = None) -> None:
        super().__init__(text or self.condition)
        if text is not None:
            self.text = text
        if application is not None:
            self.application = application


class BadRequest(RequestError):
    """The request breaks its specification; the text names the field."""

    condition = "bad-request"
    type = "modify"


class Forbidden(RequestError):
    """The sender may not do that: in particular, not with another user's data."""

    condition = "forbidden"
    type = "auth"


class ItemNotFound(RequestError):
    """What the request names does not exist."""

    condition = "item-not-found"
    type = "cancel"


class FeatureNotImplemented(RequestError):
    """Understood, and not offered here."""

    condition = "feature-not-implemented"
    type = "cancel"


class ServiceUnavailable(RequestError):
    """No such service at this address (RFC 6120 §8.4: an IQ with an unknown payload)."""

    condition = "service-unavailable"
    type = "cancel"


class Conflict(RequestError):
    """A precondition does not hold."""

    condition = "conflict"
    type = "cancel"


class PolicyViolation(RequestError):
    """More than this service takes in one request; the text names the limit."""

    condition = "policy-violation"
    type = "modify"


class Behind(RequestError):
    """The feed is behind; an answer now could miss what came before the question (docs/feed.md §7)."""

    condition = "resource-constraint"
    type = "wait"
    text = "The feed is behind. Ask again in a moment."


class Overloaded(RequestError):
    """More requests than can be answered in time."""

    condition = "resource-constraint"
    type = "wait"
    text = "Too many requests are under way. Ask again in a moment."


class Undelivered(RequestError):
    """The session that asked does not take what is sent before its answer: it hibernates, or is gone."""

    condition = "recipient-unavailable"
    type = "wait"
    text = "What belongs to the answer could not be delivered to this session. Ask again."


class InternalServerError(RequestError):
    """Something is broken or down on our side; asking again later may help."""

    condition = "internal-server-error"
    type = "wait"
    text = "The request cannot be answered at the moment."


class StoreUnavailable(Exception):
    """The database did not answer, or refused the connection. Nothing was committed, or a retry finds out by its
    position.
    """


class Uncommittable(Exception):
    """The database refused these rows for what they contain; no retry helps. Carries the constraint's or the error's
    name only.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Refused(Exception):
    """A request of ours was answered with an error, or not at all; carries the condition, and the answer if there is
    one.
    """

    def __init__(self, condition: str, answer: Element | None = None) -> None:
        super().__init__(condition)
        self.condition, self.answer = condition, answer


class SealBroken(Exception):
    """No configured sealing key opens this value: the key that sealed it was removed, or the value is damaged."""


class TokenHeld(Exception):
    """A push token belongs to a device whose account was not among the locked ones: look for its owner again."""
