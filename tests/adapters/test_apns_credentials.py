"""How APNs knows us and how we get there: certificates in place of the key, proxies, and what `convsync check` says."""

import logging
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from sync.adapters import checks
from sync.adapters.apns import ApnsApp, ApnsGate
from sync.adapters.apns.client_certificate import BadClientCertificate, certificate_refused, read_certificate
from sync.adapters.apns.tunnel import Proxy, ProxyRefused, tunnel
from sync.adapters.checks import Level
from sync.adapters.checks.apns import Target
from sync.app.apns import signing_key, targets
from sync.config import ConfigError, load
from sync.model.push import Verdict
from sync.sandbox.apns.certificates import certificate_pem, key_pem, new_authority
from sync.sandbox.apns.senders import Environment, Senders, Wanted
from tests.adapters.connect_proxy import ConnectProxy, connect_proxy
from tests.contract.apns_server import APP, PATIENCE, Apns, alert, apns, voip
from tests.core.test_config import SMALLEST, written

USER, PASSWORD = "user", "pass:wörd"
CREDENTIALS = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture
async def server() -> AsyncIterator[Apns]:
    async with apns() as running:
        yield running


def p12(pem: bytes, password: str | None) -> bytes:
    key: Any = load_pem_private_key(pem[pem.index(b"-----BEGIN PRIV") :], None)
    seal = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return pkcs12.serialize_key_and_certificates(b"app", key, x509.load_pem_x509_certificate(pem), None, seal)


def certified(server: Apns, file: Path, password: str | None = None) -> ApnsApp:
    return replace(server.app(), certificate=read_certificate(file, password))


# ---- certificates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", [None, "secret of the file"])
@pytest.mark.parametrize("form", ["pem", "p12"])
async def test_a_certificate_takes_the_place_of_the_key(
    server: Apns, tmp_path: Path, form: str, password: str | None
) -> None:
    pem = server.simulator.senders.issue(Wanted(app=APP))
    if form == "p12":
        pem = p12(pem, password)
    elif password is not None:
        key: Any = load_pem_private_key(pem[pem.index(b"-----BEGIN PRIV") :], None)
        sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode()))
        pem = sealed + certificate_pem(x509.load_pem_x509_certificate(pem))
    (tmp_path / "app").write_bytes(pem)
    gate = ApnsGate([certified(server, tmp_path / "app", password)], None, limits=PATIENCE)
    await gate.open()
    assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
    assert (await gate.send(voip())).verdict is Verdict.ACCEPTED
    assert gate.counts().opened == 1
    await gate.close()
    assert server.simulator.stats()["provider_tokens"] == 0


async def test_an_app_with_a_certificate_has_a_connection_of_its_own(server: Apns) -> None:
    both = [certified(server, server.simulator.senders.file(APP)), replace(server.app(), name="signed")]
    gate = ApnsGate(both, server.tokens(), limits=PATIENCE)
    await gate.open()
    assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
    assert (await gate.send(alert(app="signed"))).verdict is Verdict.ACCEPTED
    assert gate.counts().connections == 2
    await gate.close()


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Wanted(app=APP, environments=(Environment.SANDBOX,)), "BadCertificateEnvironment"),
        (Wanted(app=APP, revoked=True), "BadCertificate"),
    ],
)
async def test_a_certificate_that_apns_refuses_is_about_credentials(
    server: Apns, tmp_path: Path, wanted: Wanted, reason: str
) -> None:
    (tmp_path / "app.pem").write_bytes(server.simulator.senders.issue(wanted))
    gate = ApnsGate([certified(server, tmp_path / "app.pem")], None, limits=PATIENCE)
    outcome = await gate.send(alert())
    assert (outcome.verdict, outcome.status, outcome.reason) == (Verdict.CREDENTIALS, 403, reason)
    await gate.close()


class Picky(Thread):
    """A TLS server that wants other certificates, and says so: asyncio's cuts the connection without a word."""

    def __init__(self, server: Apns, version: ssl.TLSVersion) -> None:
        super().__init__(daemon=True)
        self.context = server.simulator.certificates.server_context(server.simulator.senders.ca)
        self.context.maximum_version = version
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.read = 0

    def run(self) -> None:
        with suppress(OSError):
            while True:
                end, _ = self.listener.accept()
                with self.context.wrap_socket(end, server_side=True, do_handshake_on_connect=False) as secured:
                    self.serve(secured)

    def serve(self, secured: ssl.SSLSocket) -> None:
        try:
            secured.do_handshake()
            self.read += len(secured.recv(1))
        except ssl.SSLError:
            # To close with something unread would be a reset, which may overtake the alert.
            secured.shutdown(socket.SHUT_WR)
            while socket.socket.recv(secured, 4096):
                pass

    @classmethod
    @contextmanager
    def at_work(cls, server: Apns, version: ssl.TLSVersion) -> "Iterator[Picky]":
        picky = cls(server, version)
        picky.start()
        try:
            yield picky
        finally:
            picky.listener.shutdown(socket.SHUT_RDWR)
            picky.listener.close()
            picky.join()


def stranger(folder: Path) -> Path:
    """A certificate of another authority."""
    (folder / "app.pem").write_bytes(Senders(folder / "stranger", Environment.PRODUCTION).issue(Wanted(app=APP)))
    return folder / "app.pem"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_that_tls_refuses_is_about_credentials(
    server: Apns, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Said in the handshake (TLS 1.2), or after a request has left (1.3): no push was taken."""
    with Picky.at_work(server, version) as picky:
        app = replace(certified(server, stranger(tmp_path)), server=f"https://127.0.0.1:{picky.port}")
        gate = ApnsGate([app], None, limits=PATIENCE)
        for _ in range(3):
            outcome = await gate.send(voip())
            assert (outcome.verdict, outcome.status, outcome.reason) == (Verdict.CREDENTIALS, None, "BadCertificate")
        await gate.close()
        assert picky.read == 0


async def test_one_that_is_cut_off_without_a_word_is_not_known_to_be_refused(server: Apns, tmp_path: Path) -> None:
    gate = ApnsGate([certified(server, stranger(tmp_path))], None, limits=PATIENCE)
    assert (await gate.send(voip())).verdict in {Verdict.UNCERTAIN, Verdict.NOT_SENT}
    await gate.close()
    assert server.log() == []


def test_only_alerts_about_certificates_are_about_credentials() -> None:
    assert not certificate_refused(None)
    assert not certificate_refused(ConnectionResetError())
    assert not certificate_refused(ssl.SSLError(1, "no reason"))


ONE, TWO = (new_authority(title) for title in ("one", "two"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        certificate_pem(ONE.certificate),
        key_pem(ONE.key),
        certificate_pem(ONE.certificate) + key_pem(TWO.key),
        p12(certificate_pem(ONE.certificate) + key_pem(ONE.key), "another password"),
    ],
    ids=["empty", "garbage", "broken", "no key", "no certificate", "another's key", "wrong password"],
)
def test_a_file_that_is_no_certificate_with_its_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "app").write_bytes(content)
    with pytest.raises(BadClientCertificate) as caught:
        read_certificate(tmp_path / "app", "wrong-password")
    assert "wrong-password" not in str(caught.value)
    with pytest.raises(BadClientCertificate):
        read_certificate(tmp_path / "nowhere", None)


# ---- a proxy ---------------------------------------------------------------------------------------------------------


def through(proxy: ConnectProxy, user: str = "") -> Proxy:
    return Proxy.of(f"http://{user}127.0.0.1:{proxy.port}")


@pytest.mark.parametrize("user", ["", "user:pass%3Aw%C3%B6rd@"])
async def test_pushes_go_through_a_proxy(server: Apns, user: str) -> None:
    async with connect_proxy(CREDENTIALS if user else None) as proxy:
        gate = ApnsGate([server.app()], server.tokens(), proxy=through(proxy, user), limits=PATIENCE)
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
        assert (await gate.send(voip())).verdict is Verdict.ACCEPTED
        await gate.close()
    (asked,) = proxy.asked
    assert asked.startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n")
    assert (f"Proxy-Authorization: {CREDENTIALS}\r\n" in asked) is bool(user)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\n\r\nand more, before anybody spoke",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"x" * 100_000,
    ],
)
async def test_a_proxy_that_refuses_or_is_none(server: Apns, answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with connect_proxy() as proxy:
        proxy.answer = answer
        with pytest.raises(ProxyRefused) as caught:
            await tunnel(through(proxy), "127.0.0.1", server.port)
        assert len(str(caught.value)) < 60
        caplog.set_level(logging.DEBUG)
        gate = ApnsGate([server.app()], server.tokens(), proxy=through(proxy, "user:hush-hush@"), limits=PATIENCE)
        assert (await gate.send(alert())).verdict is Verdict.NOT_SENT
        await gate.close()
    assert "hush-hush" not in caplog.text
    assert server.log() == []


async def test_nobody_at_the_proxy(server: Apns) -> None:
    async with connect_proxy() as proxy:
        pass
    gate = ApnsGate([server.app()], server.tokens(), proxy=through(proxy), limits=PATIENCE)
    assert (await gate.send(alert())).verdict is Verdict.NOT_SENT
    await gate.close()


@pytest.mark.parametrize("url", ["https://proxy:1", "http://proxy", "proxy:3128", "http://:1", "http://p:1/path", ""])
def test_what_is_no_proxy(url: str) -> None:
    with pytest.raises(ValueError, match="wanted is http://host:port"):
        Proxy.of(url)


def test_a_proxy_does_not_show_its_password() -> None:
    assert "hush" not in repr(Proxy.of("http://user:hush@proxy:3128"))


# ---- what `convsync check` says --------------------------------------------------------------------------------------


async def checked(tmp_path: Path, server: Apns, apns_: str, app: str) -> list[checks.Finding]:
    """Out of a configuration, as the command does it."""
    text = f"""{SMALLEST}[apns]
{apns_}
[[apns.apps]]
name = "chat"
bundle_id = "{APP}"
environment = "production"
filtering = true
server = "127.0.0.1:{server.port}"
ca_file = "{server.ca_file}"
{app}
"""
    config = load(written(tmp_path, text)).apns
    assert config is not None
    return await checks.apns(signing_key(config), targets(config))


async def test_a_certificate_is_looked_at_and_shown(tmp_path: Path, server: Apns) -> None:
    file = tmp_path / "app.p12"
    file.write_bytes(p12(server.simulator.senders.issue(Wanted(app=APP)), "word"))
    (tmp_path / "word").write_text("word\n")
    app = f'certificate_file = "{file}"\ncertificate_password_file = "{tmp_path}/word"'
    found = await checked(tmp_path, server, "", app)
    assert [one.level for one in found] == [Level.OK, Level.OK]
    assert found[0].detail.startswith("the certificate is good until ")


async def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path, server: Apns) -> None:
    (tmp_path / "app.p12").write_bytes(b"nothing")
    app = f'certificate_file = "{tmp_path}/app.p12"\ncertificate_password = "hush-hush"'
    (found,) = await checked(tmp_path, server, "", app)
    assert (found.level, found.field) == (Level.FAULT, "apns.apps.1.certificate_file")
    assert "hush-hush" not in str(found)


async def test_a_certificate_that_is_not_taken_is_named(tmp_path: Path, server: Apns) -> None:
    app = f'certificate_file = "{stranger(tmp_path)}"'
    _, found = await checked(tmp_path, server, "", app)
    assert (found.level, found.field) == (Level.FAULT, "apns.apps.1.certificate_file")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with Picky.at_work(server, version) as picky:
            _, found = await checked(tmp_path, replace(server, port=picky.port), "", app)
        assert (found.level, found.field) == (Level.FAULT, "apns.apps.1.certificate_file")
        assert "does not take our certificate" in found.detail


@pytest.mark.parametrize(
    ("days", "bundle_id", "found"),
    [
        (-1, APP, (Level.FAULT, "has expired")),
        (29, APP, (Level.NOTE, "expires on")),
        (31, APP, (Level.OK, "good until")),
        (31, "org.example.other", (Level.NOTE, "does not name org.example.other")),
    ],
)
async def test_how_long_a_certificate_is_good_and_for_whom(
    server: Apns, days: int, bundle_id: str, found: tuple[Level, str]
) -> None:
    shown = read_certificate(server.simulator.senders.file(APP), None)
    shown = replace(shown, until=datetime.now(UTC) + timedelta(days=days, minutes=1))
    target = Target(
        name="chat",
        bundle_id=bundle_id,
        host="127.0.0.1",
        port=server.port,
        ca_file=server.ca_file,
        certificate=shown,
    )
    told = (await checks.apns(None, [target]))[0]
    assert (told.level, found[1] in told.detail) == (found[0], True)


async def test_the_check_goes_through_the_proxy(tmp_path: Path, server: Apns) -> None:
    certificate = f'certificate_file = "{server.simulator.senders.file(APP)}"'
    async with connect_proxy(CREDENTIALS) as proxy:
        good = f'proxy = "http://user:pass%3Aw%C3%B6rd@127.0.0.1:{proxy.port}"'
        _, found = await checked(tmp_path, server, good, certificate)
        assert (found.level, found.detail.endswith("through the proxy")) == (Level.OK, True)
        wrong = f'proxy = "http://user:hush-hush@127.0.0.1:{proxy.port}"'
        _, found = await checked(tmp_path, server, wrong, certificate)
    assert (found.level, found.field) == (Level.FAULT, "apns.proxy")
    assert "407" in found.detail
    assert "hush-hush" not in str(found)


@pytest.mark.parametrize(
    ("apns_", "app", "fault"),
    [
        ('team_id = "TEAMTEAM01"', "", "apns: key_id is missing: team_id, key_id and key_file belong together"),
        ("", "", "apns: app chat has no certificate_file, and there is no team_id"),
        ("", 'certificate_password = "x"', "apns.apps.1: certificate_password needs certificate_file"),
        ("", 'certificate_file = "/nowhere"', "apns.apps.1.certificate_file: there is no file /nowhere"),
        ('proxy = "https://user:hush-hush@proxy:1"', "", "apns.proxy: wanted is a URL: http://host:port"),
        ('proxy = "http://user:hush-hush@proxy"', "", "apns.proxy: wanted is a URL: http://host:port"),
        ('proxy = "http://user:hush-hush@proxy:no"', "", "apns.proxy: wanted is a URL: http://host:port"),
    ],
)
async def test_what_cannot_be_configured(tmp_path: Path, server: Apns, apns_: str, app: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await checked(tmp_path, server, apns_, app)
    assert any(one.startswith(fault) for one in caught.value.faults), caught.value.faults
    assert "hush-hush" not in str(caught.value)
