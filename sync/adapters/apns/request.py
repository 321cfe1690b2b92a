"""One push as the bytes that leave: header fields and body, on aioapns' own request type.

aioapns knows only a time to live, relative to a clock that it reads itself; we need `apns-expiration` as it was
decided, 0 included. It decides nothing: what may be sent was decided before.
"""

import json
import re

from aioapns import NotificationRequest
from aioapns import PushType as WirePushType

from sync.model.push import PushRequest
from sync.protocol.apns import topic

_PLAIN = re.compile(r"[!-~]+")  # visible ASCII


class Notification(NotificationRequest):
    """aioapns' request with an absolute expiration. `body` is the payload as compact UTF-8 JSON.

    Raises ValueError or TypeError when the payload is not JSON or a header field is not plain text: nothing that came
    from a client may end a header, or make hyper-h2 refuse one halfway.
    """

    __slots__ = ("body", "expiration", "topic")

    def __init__(self, request: PushRequest, bundle_id: str) -> None:
        self.topic = topic(bundle_id, request.push_type)
        super().__init__(
            device_token=request.token,
            message=dict(request.payload),
            notification_id=request.apns_id,
            priority=request.priority,
            collapse_key=request.collapse_id,
            push_type=WirePushType(request.push_type.value),
            apns_topic=self.topic,
        )
        self.expiration = request.expiration
        for text in (self.device_token, self.notification_id, self.topic, self.collapse_key or "x"):
            if not _PLAIN.fullmatch(text):
                raise ValueError("a header field is not plain text")
        encoded = json.dumps(self.message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        self.body: bytes = encoded.encode()

    def headers(self, authority: str, bearer: str | None) -> list[tuple[str, str]]:
        """The header fields in the order that HTTP/2 wants: pseudo-headers first. Without `bearer` the connection's
        certificate says who we are.
        """
        fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", f"/3/device/{self.device_token}"),
            (":authority", authority),
            ("apns-id", self.notification_id),
            ("apns-topic", self.topic),
            ("apns-expiration", str(self.expiration)),
            ("apns-priority", str(self.priority)),
        ]
        if bearer is not None:
            fields.append(("authorization", f"bearer {bearer}"))
        if self.push_type is not None:
            fields.append(("apns-push-type", self.push_type.value))
        if self.collapse_key is not None:
            fields.append(("apns-collapse-id", self.collapse_key))
        return fields
