"""`convsync check`'s findings, each against the real thing or a server that misbehaves in one way."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sync.adapters import checks
from sync.adapters.checks import Level
from sync.adapters.checks.apns import SigningKey, Target
from sync.adapters.postgres.migrate import VERSION
from sync.model.survey import OLD, HostSurvey, Survey
from sync.protocol.survey import decode_survey, encode_survey
from tests.adapters.component_port import certified as named
from tests.ports import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]

# ---- Postgres --------------------------------------------------------------------------------------------------------


async def test_an_installed_database_is_well(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("INSERT INTO schema_version VALUES ($1) ON CONFLICT DO NOTHING", VERSION)
    await connection.close()
    server, schema = await checks.postgres(database, expected=VERSION)
    assert server.level is Level.OK
    assert server.detail.startswith("PostgreSQL ")
    assert str(schema) == f"ok    schema: version {VERSION}"


@pytest.mark.parametrize(("ahead", "words"), [(1, "newer than this program"), (-1, "run: convsync schema")])
async def test_a_schema_of_another_version_is_named(database: str, ahead: int, words: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("DELETE FROM schema_version")
    await connection.execute("INSERT INTO schema_version VALUES (7)")
    await connection.close()
    _, schema = await checks.postgres(database, expected=7 - ahead)
    assert schema.level is Level.FAULT
    assert words in schema.detail


async def test_a_database_without_a_schema_says_how_to_install_it(empty_database: str) -> None:
    _, schema = await checks.postgres(empty_database, expected=VERSION)
    assert (schema.level, schema.field) == (Level.FAULT, "postgres.dsn")
    assert "convsync schema" in schema.detail


async def test_a_refused_password_is_named_and_not_shown(database: str) -> None:
    user, _, rest = database.partition("//")[2].partition(":")
    wrong = f"postgresql://{user}:wrong-wrong@{rest.partition('@')[2]}"
    (found,) = await checks.postgres(wrong, expected=VERSION)
    assert str(found) == "fault postgres: cannot connect: the user or the password is refused  → postgres.dsn"


async def test_nobody_at_the_databases_port() -> None:
    dsn = f"postgresql://a:hush@127.0.0.1:{free_port()}/x"
    (found,) = await checks.postgres(dsn, expected=VERSION)
    assert (found.level, found.detail) == (Level.FAULT, "cannot connect: nobody listens there")
    assert await checks.lease_holders(dsn) is None


async def test_a_live_lease_names_its_holder_and_an_expired_one_nobody(database: str) -> None:
    connection = await asyncpg.connect(database)
    insert = "INSERT INTO lease VALUES ($1, $2, 1, now() + $3 * interval '1 s', 1, now())"
    await connection.execute(insert, "feed", "node-1", 60)
    await connection.execute(insert, "other", "node-2", -1)
    await connection.close()
    assert await checks.lease_holders(database) == ["node-1"]


async def test_without_a_schema_nobody_holds_a_lease(empty_database: str) -> None:
    assert await checks.lease_holders(empty_database) == []


# ---- Redis -----------------------------------------------------------------------------------------------------------


async def test_a_redis_that_keeps_what_it_is_given_is_well(redis_url: str) -> None:
    (found,) = await checks.redis(redis_url)
    assert found.level is Level.OK


async def test_a_redis_that_evicts_is_noted(redis_url: str) -> None:
    client = redis.asyncio.from_url(redis_url)
    await client.config_set("maxmemory-policy", "allkeys-lru")
    (found,) = await checks.redis(redis_url)
    await client.config_set("maxmemory-policy", "noeviction")
    await client.aclose()
    assert found.level is Level.NOTE
    assert "allkeys-lru" in found.detail


async def test_no_redis_is_never_a_fault(redis_url: str) -> None:
    (refused,) = await checks.redis(redis_url.replace("redis://:", "redis://:x"))
    (absent,) = await checks.redis(f"redis://127.0.0.1:{free_port()}")
    (unwanted,) = await checks.redis(None)
    assert {refused.level, absent.level, unwanted.level} == {Level.NOTE}
    assert "refused" in refused.detail
    assert "cannot connect" in absent.detail


# ---- the server's handshake ------------------------------------------------------------------------------------------

HEADER = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' " + (
    "xmlns:stream='http://etherx.jabber.org/streams' from='sync.x' id='s<1'>".replace("<", "&lt;")
)
ERROR = "<stream:error><{0} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"


@asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)  # type: ignore[arg-type]
    yield server.sockets[0].getsockname()[1]
    server.close()


class Server:
    """An XMPP server's side of XEP-0114; `refusal` is the condition it answers with."""

    def __init__(self, *, right: bool = True, refusal: str | None = None) -> None:
        self.secret, self.refusal, self.connections = "hush" if right else "another", refusal, 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b">")  # the declaration, then the header
        await reader.readuntil(b">")
        writer.write(HEADER.encode())
        if self.refusal is None:
            digest = sha1(f"s<1{self.secret}".encode(), usedforsecurity=False).hexdigest()
            said = (await reader.readuntil(b"</handshake>")).decode()
            self.refusal = None if said == f"<handshake>{digest}</handshake>" else "not-authorized"
        writer.write((ERROR.format(self.refusal) if self.refusal else "<handshake/>").encode())
        await reader.read()
        writer.close()


async def handshake(server: Handler, holders: list[str] | None = ()) -> checks.Finding:  # type: ignore[assignment]
    async with serving(server) as port:
        (found,) = await checks.component(
            jid="sync.x",
            secret="hush",
            server="127.0.0.1",
            port=port,
            holders=None if holders is None else list(holders),
        )
    return found


async def test_a_server_that_takes_us_is_well() -> None:
    assert (await handshake(Server())).level is Level.OK


async def test_a_wrong_secret_is_named() -> None:
    found = await handshake(Server(right=False))
    assert str(found) == "fault component: the server refuses the secret  → component.secret"


@pytest.mark.parametrize(
    ("condition", "field"),
    [("host-unknown", "component.jid"), ("conflict", "component.jid"), ("policy-violation", "component.server")],
)
async def test_a_refusal_names_the_field_that_mends_it(condition: str, field: str) -> None:
    found = await handshake(Server(refusal=condition))
    assert (found.level, found.field) == (Level.FAULT, field)


async def test_a_running_component_is_not_thrown_out() -> None:
    server = Server()
    found = await handshake(server, ["node-1"])
    assert (found.level, found.detail) == (Level.OK, "sync.x is connected by node-1")
    assert server.connections == 0


async def test_nothing_is_risked_while_the_database_does_not_tell() -> None:
    server = Server()
    assert (await handshake(server, None)).level is Level.NOTE
    assert server.connections == 0


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"<a>" + b"<b/>" * 40000])
async def test_something_else_at_the_port_is_named(answer: bytes) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    found = await handshake(other)
    assert (found.level, found.field) == (Level.FAULT, "component.port")


async def test_nobody_at_the_servers_port() -> None:
    (found,) = await checks.component(jid="sync.x", secret="x", server="127.0.0.1", port=free_port(), holders=[])
    assert (found.level, found.field) == (Level.FAULT, "component.server")


@pytest.mark.parametrize(
    ("trusted", "name", "field"),
    [(True, "xmpp.x", None), (False, "xmpp.x", "component.tls_ca"), (True, "other.x", "component.tls_name")],
)
async def test_tls_to_the_component_port(tmp_path: Path, trusted: bool, name: str, field: str | None) -> None:
    context, pem = named(tmp_path, "xmpp.x")
    ours = ssl.create_default_context(cafile=pem if trusted else None)
    async with serving(Server(), context) as port:
        (found,) = await checks.component(
            jid="sync.x", secret="hush", server="127.0.0.1", port=port, holders=[], tls=(ours, name)
        )
    assert (found.level, found.field) == (Level.OK if field is None else Level.FAULT, field)


async def test_a_port_without_tls_is_named() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(HEADER.encode())
        writer.close()

    async with serving(plain) as port:
        (found,) = await checks.component(
            jid="sync.x",
            secret="hush",
            server="127.0.0.1",
            port=port,
            holders=[],
            tls=(ssl.create_default_context(), "x"),
        )
    assert (found.level, found.field) == (Level.FAULT, "component.tls")


# ---- the server's side -----------------------------------------------------------------------------------------------


def seen(**changes: object) -> str:
    """What is said of a users' host on which nothing is wrong but that."""
    well: dict[str, object] = {"host": "ex.org", "rooms": False, "server": "Prosody", "archive": ""}
    survey = Survey(component="sync.x", hosts=(HostSurvey(**(well | changes)),))  # type: ignore[arg-type]
    return "\n".join(map(str, checks.server(survey)))


def test_a_host_where_nothing_is_missing() -> None:
    assert seen(module_version="0.3.0").splitlines() == [
        "ok    feed ex.org: the feed module 0.3.0 answers on Prosody",
        "ok    archive ex.org: may be read for a first contact and for repair",
    ]


@pytest.mark.parametrize(
    ("changes", "first", "line"),
    [
        ({"module": "service-unavailable"}, "fault feed ex.org: no answer", '"convsync_feed"'),
        ({"module": "forbidden"}, "fault feed ex.org: the feed module does not let", "convsync_feed_components"),
        ({"module": "no-answer"}, "fault feed ex.org: no answer", '"convsync_feed"'),
        ({"module": "remote-server-not-found"}, "fault feed ex.org: the server does not know", "→ component.hosts"),
        ({"module": "conflict"}, "fault feed ex.org: the feed module refuses: conflict", ""),
        ({"why": "the module speaks version 2"}, "fault feed ex.org: the module speaks version 2", ""),
        ({"archive": "forbidden"}, "ok    feed", "convsync_feed_archive = true"),
        ({"archive": "feature-not-implemented"}, "ok    feed", 'modules_enabled = { …; "mam" }'),
        ({"archive": "feature-not-implemented", "rooms": True}, "ok    feed", 'modules_enabled = { …; "muc_mam" }'),
        ({"archive": OLD}, "ok    feed", "copy deploy/prosody/mod_convsync_feed"),
        ({"archive": "resource-constraint"}, "ok    feed", "cannot be read: resource-constraint"),
        ({"missing": ("urn:x",)}, "ok    feed", '["urn:x"] = { jid = "sync.x" }'),
        ({"uncovered": ("rooms.ex.org",)}, "ok    feed", 'Component "rooms.ex.org" "muc"'),
    ],
)
def test_each_thing_that_is_missing_has_its_line(changes: dict[str, object], first: str, line: str) -> None:
    said = seen(**changes)
    assert said.startswith(first)
    assert line in said
    assert "ejabberd.yml" not in said


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"module": "service-unavailable"}, 'modules: mod_convsync_feed: components: ["sync.x"]'),
        ({"archive": "forbidden"}, "modules: mod_convsync_feed: archive: true"),
        ({"archive": "feature-not-implemented"}, "modules: mod_mam: {}"),
        ({"missing": ("urn:x",)}, 'modules: mod_delegation: namespaces: "urn:x": access: convsync'),
    ],
)
def test_and_ejabberd_has_lines_of_its_own(changes: dict[str, object], line: str) -> None:
    said = seen(server="ejabberd", **changes)
    assert f"ejabberd.yml, {line}" in said
    assert "prosody.cfg.lua" not in said
    assert {"ejabberd.yml", "prosody.cfg.lua"} <= set(seen(server="", **changes).replace(",", " ").split())


def test_a_survey_comes_back_as_it_went() -> None:
    one = HostSurvey(host="ex.org", rooms=True, missing=("a", "b"), uncovered=("c",), why="w")
    survey = Survey(component="sync.x", hosts=(one,), large=False)
    assert decode_survey(encode_survey(survey)) == survey
    for nonsense in ("", "{}", "[]", "null", '{"component": "x", "hosts": [{}], "large": null}', '{"hosts": 1}'):
        with pytest.raises(ValueError, match="no survey"):
            decode_survey(nonsense)


# ---- APNs ------------------------------------------------------------------------------------------------------------


def private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certified(folder: Path, alpn: list[str]) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context for 127.0.0.1, and the certificate that it is trusted by."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private(key))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(alpn)
    return context, pem


def target(port: int, **more: Any) -> Target:
    return Target(name="chat", bundle_id="org.example.chat", host="127.0.0.1", port=port, **more)


def key_in(file: Path) -> SigningKey:
    return SigningKey(team_id="T" * 10, key_id="K" * 10, file=file)


async def reached(folder: Path, alpn: list[str], *, trusted: bool = True) -> checks.Finding:
    context, pem = certified(folder, alpn)

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with serving(wait, context) as port:
        return (await checks.apns(None, [target(port, ca_file=pem if trusted else None)]))[0]


async def test_an_apns_host_is_reached(tmp_path: Path) -> None:
    assert (await reached(tmp_path, ["h2"])).level is Level.OK


async def test_a_host_without_http2_is_not_apns(tmp_path: Path) -> None:
    found = await reached(tmp_path, ["http/1.1"])
    assert (found.level, found.field) == (Level.FAULT, "apns.apps.1.server")


async def test_an_untrusted_certificate_names_the_ca(tmp_path: Path) -> None:
    found = await reached(tmp_path, ["h2"], trusted=False)
    assert (found.level, found.field) == (Level.FAULT, "apns.apps.1.ca_file")


async def test_nobody_at_the_apns_port(tmp_path: Path) -> None:
    found = (await checks.apns(key_in(tmp_path / "no"), [target(free_port())]))[1]
    assert (found.level, found.field) == (Level.FAULT, "apns.apps.1.server")


@pytest.mark.parametrize(
    ("content", "level"),
    [
        (private(ec.generate_private_key(ec.SECP256R1())), Level.OK),
        (private(rsa.generate_private_key(65537, 2048)), Level.FAULT),
        (b"no key", Level.FAULT),
        (b"", Level.FAULT),
    ],
)
async def test_a_key_that_cannot_sign_is_named(tmp_path: Path, content: bytes, level: Level) -> None:
    key = tmp_path / "AuthKey.p8"
    key.write_bytes(content)
    (found,) = await checks.apns(key_in(key), [])
    assert found.level is level
    assert found.field == (None if level is Level.OK else "apns.key_file")


async def test_a_cluster_is_told_from_a_single_redis(redis_url: str, cluster_urls: list[str]) -> None:
    for url, cluster in ((redis_url, False), (cluster_urls[0], True)):
        (well,) = await checks.redis(url, cluster=cluster)
        assert well.level is checks.Level.OK
        (other,) = await checks.redis(url, cluster=not cluster)
        assert (other.level, other.field) == (checks.Level.NOTE, "redis.cluster_nodes")
