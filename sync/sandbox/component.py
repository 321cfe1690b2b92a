"""The component and the APNs simulator as parts, and the configuration that joins them.

Decides the simulated app and the provider's key; writes the component's configuration as an operator would.
Refuses to know how either works inside: both are commands of this package.
"""

import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sync.sandbox.identity import write_private
from sync.sandbox.parts import Part
from sync.sandbox.probes import accepts, answers_200

APP = "org.example.chat"
TEAM_ID, KEY_ID = "SANDBOX001", "SANDBOXKEY"

_SETTLED = """[log]
level = "info"
format = "json"

# Whatever host the server has besides.
[other_servers]
served = ["*"]
token_apps = ["org.example.chat"]

# Nobody else needs the machine, and whoever tries something out does not wait for archives.
[bootstrap]
pages_per_second = 50.0
at_once = 4"""

# -P: the current folder is not a place to import from.
PYTHON = (sys.executable, "-P", "-m")


def provider_key(folder: Path) -> tuple[Path, Path]:
    """The key that signs provider tokens, and its public half; made when missing."""
    private, public = folder / "AuthKey.p8", folder / "AuthKey.pub.pem"
    if not (private.exists() and public.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        written = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(private, written.decode())
        public.write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return private, public


def configure(
    file: Path,
    *,
    jid: str,
    secret: str,
    component_port: int,
    host: str,
    muc_host: str,
    postgres: str,
    redis: str,
    http_port: int,
    sealing_key: str,
    key_file: Path,
    apns_port: int,
    ca_file: Path,
) -> None:
    """Write the component's configuration. A JSON string is also a TOML string."""
    quoted = json.dumps
    write_private(
        file,
        f"""# Written by the sandbox at every start.
[component]
jid = {quoted(jid)}
secret = {quoted(secret)}
server = "127.0.0.1"
port = {component_port}
hosts = [{quoted(host)}]
muc_hosts = [{quoted(muc_host)}]

[postgres]
dsn = {quoted(postgres)}

[redis]
url = {quoted(redis)}

[http]
listen = "127.0.0.1"
port = {http_port}

[secrets]
keys = [{quoted(sealing_key)}]

{_SETTLED}

[apns]
team_id = {quoted(TEAM_ID)}
key_id = {quoted(KEY_ID)}
key_file = {quoted(str(key_file), ensure_ascii=False)}

[[apns.apps]]
name = {quoted(APP)}
bundle_id = {quoted(APP)}
environment = "sandbox"
filtering = true
server = "https://127.0.0.1:{apns_port}"
ca_file = {quoted(str(ca_file), ensure_ascii=False)}
""",
    )


def apns(folder: Path, *, port: int, control_port: int, public_key: Path) -> Part:
    """The simulator; its log is `folder`/apns.jsonl, its authority `folder`/ca.pem."""

    async def answers() -> bool:
        return await accepts(port) and await accepts(control_port)

    return Part(
        name="apns",
        argv=(
            *(*PYTHON, "sync.sandbox.apns", "--port", str(port), "--control-port", str(control_port)),
            *("--log", str(folder / "apns.jsonl"), "--certificate-dir", str(folder)),
            *("--provider-key", str(public_key), "--team-id", TEAM_ID, "--key-id", KEY_ID, "--app", APP),
        ),
        cwd=folder,
        answers=answers,
    )


def component(folder: Path, *, configuration: Path, http_port: int) -> Part:
    """The component itself; it answers when it is joined to its server."""

    async def answers() -> bool:
        return await answers_200(http_port, "/ready")

    return Part(
        name="component",
        argv=(*PYTHON, "sync", "serve", "--config", str(configuration)),
        cwd=folder,
        answers=answers,
    )
