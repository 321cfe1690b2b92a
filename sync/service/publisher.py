"""Sends claimed pushes to app servers that are not ours (XEP-0357 §7), and tells what came back.

An app server is asked by an IQ of the component's own. It answers within seconds or counts as silent; nothing is
repeated here. How much is under way, for each domain and altogether, the pusher's queues bound.
"""

import asyncio
import base64
from collections.abc import Callable

from sync.model.errors import Refused
from sync.model.publish import Cipher
from sync.model.push import PushOutcome, Verdict
from sync.ports import Sealer, Wire
from sync.protocol import envelope, publish
from sync.rules.claims import Claim
from sync.rules.publish import notice
from sync.rules.publish_budget import PublishPolicy

ANSWER_SECONDS = 8.0  # a send must be over before it counts as abandoned (`pusher.ABANDONED_AFTER`)
NO_ANSWER = PushOutcome(verdict=Verdict.UNCERTAIN, reason="no-answer")


class Publisher:
    """`encrypt` takes a client's key and a text."""

    def __init__(
        self,
        *,
        component: str,
        wire: Wire,
        sealer: Sealer,
        encrypt: Callable[[bytes, bytes], Cipher],
        policy: PublishPolicy,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._component, self._wire, self._sealer = component, wire, sealer
        self._encrypt, self._policy, self._answer_seconds = encrypt, policy, answer_seconds

    async def send(self, found: Claim) -> PushOutcome:
        """Publish once. Raises SealBroken."""
        device = found.device
        server = publish.read(self._sealer.open(device.alert_token.sealed))
        last = found.conversation.last if found.conversation is not None else None
        told = notice(found, publish.excerpt(last.stanza) if last is not None else None, self._policy)
        encrypt, cipher = device.wishes.encrypt, None
        if encrypt is not None:
            key = base64.b64decode(self._sealer.open(encrypt.sealed_key))
            cipher = self._encrypt(key, publish.letter(told, encrypt.max_bytes))
        payload = publish.publish(server, told, cipher=cipher, says_priority=device.wishes.priority)
        stanza = envelope.iq("set", sender=self._component, to=server.jid, request_id="publish", payload=payload)
        try:
            async with asyncio.timeout(self._answer_seconds):
                await self._wire.request(stanza)
        except TimeoutError:
            return NO_ANSWER
        except Refused as refusal:
            return publish.refused(refusal)
        return PushOutcome(verdict=Verdict.ACCEPTED)
