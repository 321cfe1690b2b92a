"""What can go wrong when a client asks, as exceptions: each XMPP condition that this protocol uses has its class.

What the server refuses is `RequestFailed`, with `condition`, `type` and `text` as the server said them; what has no
class of its own is a plain `RequestFailed`. The text is meant for a developer, not for a user.
"""


class ConvsyncError(Exception):
    """Whatever this library raises."""


class BadAnswer(ConvsyncError):
    """The server's answer is not what the protocol says; the text names the field."""


class NotConnected(ConvsyncError):
    """There is no session, or it ended before the answer."""


class NoAnswer(ConvsyncError):
    """No answer came in time. Whether a request that sets something was carried out is not known."""


class RequestFailed(ConvsyncError):
    """The server refused a request. `type` is that of RFC 6120 §8.3.2: `wait` may be asked again."""

    def __init__(self, condition: str, type: str = "cancel", text: str = "") -> None:  # noqa: A002 - the RFC's word
        super().__init__(f"{condition}: {text}" if text else condition)
        self.condition, self.type, self.text = condition, type, text


class BadRequest(RequestFailed):
    """The request breaks the protocol, or the token is none of this account's."""


class Forbidden(RequestFailed):
    """Not with another account's data."""


class NotFound(RequestFailed):
    """There is no such conversation, message, call or device."""


class Conflict(RequestFailed):
    """A conversation has another version than `if_version`; nothing was set."""


class LimitExceeded(RequestFailed):
    """More than the server takes in one request."""


class NotSupported(RequestFailed):
    """The server does not speak this protocol, or not this request."""


class TryLater(RequestFailed):
    """The server asked to wait, and went on to do so until the client gave up."""


_CLASSES: dict[str, type[RequestFailed]] = {
    "bad-request": BadRequest,
    "forbidden": Forbidden,
    "item-not-found": NotFound,
    "conflict": Conflict,
    "policy-violation": LimitExceeded,
    "service-unavailable": NotSupported,
    "feature-not-implemented": NotSupported,
}


def failure(condition: str, type: str, text: str) -> RequestFailed:  # noqa: A002
    """The exception for an error stanza's condition, type and text."""
    found = TryLater if type == "wait" else _CLASSES.get(condition, RequestFailed)
    return found(condition, type, text)
