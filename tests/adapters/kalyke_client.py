"""A sender that is not ours: kalyke-apns. Pushes each `[token, type]` of argv and prints what it was told, as JSON.

It knows Apple's addresses only, so that one is replaced; the authority comes by SSL_CERT_FILE. With a team it signs
with the key, without one `key` is a certificate and its key.
"""

import asyncio
import json
import sys
from typing import Any

from kalyke import ApnsClient, ApnsConfig, Payload, PayloadAlert, VoIPApnsConfig, VoIPCertificateClient, VoIPClient
from kalyke.exceptions import ApnsProviderException

told = json.loads(sys.argv[1])
address, app = told["address"], told["app"]


class Here:
    @property
    def _base_url(self) -> str:
        return str(address)


class Alerts(Here, ApnsClient):
    pass


class Calls(Here, VoIPClient):
    pass


class CallsByCertificate(Here, VoIPCertificateClient):
    pass


async def push(token: str, kind: str) -> dict[str, Any]:
    try:
        if kind == "alert":
            keys: dict[str, Any] = {"team_id": told["team"], "auth_key_id": told["key_id"]}
            alerts = Alerts(use_sandbox=False, auth_key_filepath=told["key"], **keys)
            payload = Payload(alert=PayloadAlert(title="hello"), mutable_content=True)
            return {"id": await alerts.send_message(token, payload, ApnsConfig(topic=app))}
        calls: Any
        if told.get("team"):
            keys = {"team_id": told["team"], "auth_key_id": told["key_id"]}
            calls = Calls(use_sandbox=False, auth_key_filepath=told["key"], **keys)
        else:
            calls = CallsByCertificate(use_sandbox=False, auth_key_filepath=told["key"])
        config = VoIPApnsConfig(topic=f"{app}.voip", expiration=0)
        return {"id": await calls.send_message(token, {"x": {"c": "call-1"}}, config)}
    except ApnsProviderException as refused:
        return {"refused": type(refused).__name__, **refused.error}


async def main() -> None:
    print(json.dumps([await push(token, kind) for token, kind in told["pushes"]]))


asyncio.run(main())
