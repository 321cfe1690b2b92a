"""The simulator's faults as a sender sees them, frame by frame; and senders that show a certificate."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sync.model.push import Verdict
from sync.sandbox.apns.bodies import read_device, read_token, read_wanted
from sync.sandbox.apns.fleet import told_of
from sync.sandbox.apns.senders import Environment, Senders, Wanted, read
from tests.adapters.apns_sender import Sender, sender
from tests.contract.apns_server import ALERT, APP, VOIP, Apns, alert, apns

CALL: dict[str, Any] = {"x": {"k": "call", "c": "6f9a0c3e-0000-4000-8000-000000000001"}}
TO_VOIP = {"apns-topic": f"{APP}.voip", "apns-push-type": "voip", "apns-expiration": "0"}


@pytest.fixture
async def server() -> AsyncIterator[Apns]:
    async with apns() as running:
        yield running


def connected(server: Apns, **more: Any) -> AbstractAsyncContextManager[Sender]:
    token = server.key.mint(datetime.now(UTC))
    return sender(server.port, server.ca_file, **{"authorization": f"bearer {token}", **more})


def certificate(server: Apns, folder: Path, **wanted: Any) -> Path:
    """A sender's certificate from the simulator's authority, as a file."""
    path = folder / "sender.pem"
    path.write_bytes(server.simulator.senders.issue(read_wanted({"app": APP, **wanted})))
    return path


# ---- connections -----------------------------------------------------------------------------------------------------


async def test_a_handshake_is_cut_and_the_next_is_not(server: Apns) -> None:
    server.fault("tls")
    with pytest.raises(ConnectionError):
        async with connected(server):
            pass
    async with connected(server) as connection:
        assert (await connection.push(ALERT)).status == 200
    stats = server.simulator.stats()
    assert (stats["faults_met"], stats["connections_opened"]) == ({"tls": 1}, 1)


async def test_a_stranger_s_certificate_is_shown(server: Apns) -> None:
    server.fault("tls", reason="untrusted", times=2)
    for _ in range(2):
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connected(server):
                pass
    async with connected(server) as connection:
        assert (await connection.push(ALERT)).status == 200


@pytest.mark.parametrize("reason", [None, "untrusted"])
async def test_our_sender_has_not_sent_what_no_connection_took(server: Apns, reason: str | None) -> None:
    server.fault("tls", **({"reason": reason} if reason else {}))
    async with server.gate() as gate:
        assert (await gate.send(alert())).verdict is Verdict.NOT_SENT
    async with server.gate() as gate:
        assert (await gate.send(alert())).verdict is Verdict.ACCEPTED
    stats = server.simulator.stats()
    assert (stats["faults_met"], stats["requests"]) == ({"tls": 1}, 1)


async def test_a_fault_of_connections_waits_while_requests_meet_theirs(server: Apns) -> None:
    async with connected(server) as connection:
        server.fault("tls")
        server.fault("status", status=429)
        assert (await connection.push(ALERT)).reason == "TooManyRequests"
        assert server.simulator.faults.waiting == 1


async def test_goaway_with_and_without_last_id_and_reason(server: Apns) -> None:
    async with connected(server) as connection:
        server.fault("goaway")
        await connection.push(ALERT)
        assert connection.goaway is not None
        assert (connection.goaway.last_stream_id, connection.goaway.additional_data) == (1, None)
    async with connected(server) as connection:
        await connection.push(ALERT)
        server.fault("goaway", last_stream_id=1, reason="Shutdown", timestamp=5)
        await connection.push(ALERT)
        assert connection.goaway is not None
        assert connection.goaway.last_stream_id == 1
        assert connection.goaway.additional_data == b'{"reason": "Shutdown", "timestamp": 5}'


# ---- flow control and streams ----------------------------------------------------------------------------------------


async def test_small_windows_let_a_payload_trickle(server: Apns) -> None:
    payload = {"aps": {"alert": "x" * 3_000}}
    async with connected(server) as connection:
        server.fault("window", bytes=100)
        assert (await connection.push(ALERT, payload=payload)).status == 200
        stream = connection.begin(ALERT, payload=payload)
        assert connection.h2.local_flow_control_window(stream) == 0
        assert (await connection.answer(stream)).status == 200
    assert [line["payload"] for line in server.log()] == [payload, payload]


async def test_the_number_of_streams_changes(server: Apns) -> None:
    async with connected(server) as connection:
        await connection.push(ALERT)
        await connection.allowed(1000)
        for streams in (2, 0, 500):
            server.fault("max_streams", streams=streams, times=1)
            if streams == 0:  # both streams are taken before the limit falls to none
                server.fault("slow", seconds=0.01)
                last = [connection.begin(ALERT), connection.begin(ALERT)]
                assert [(await connection.answer(one)).status for one in last] == [200, 200]
                await connection.allowed(0)
                break
            assert (await connection.push(ALERT)).status == 200
            await connection.allowed(streams)


async def test_ten_megabytes_of_answer(server: Apns) -> None:
    async with connected(server) as connection:
        server.fault("long_body")
        server.fault("long_body", status=400, reason="BadTopic", bytes=100)
        long, short = await connection.push(ALERT), await connection.push(ALERT)
        assert (long.status, len(long.body), long.reason) == (503, 10_000_000, "ServiceUnavailable")
        assert (short.status, len(short.body), short.reason) == (400, 100, "BadTopic")
        assert (await connection.push(ALERT)).status == 200


async def test_who_stops_reading_a_long_answer_disturbs_nobody(server: Apns) -> None:
    async with connected(server) as connection:
        await connection.push(ALERT)
        server.fault("long_body")
        stream = connection.begin(ALERT)
        async with asyncio.timeout(60):
            while not connection.answers[stream].body:
                connection.heard.clear()
                await connection.heard.wait()
        connection.h2.reset_stream(stream)
        connection.flush()
        assert (await connection.push(ALERT)).status == 200


async def test_who_takes_a_push_back_at_once_disturbs_nobody(server: Apns) -> None:
    async with connected(server) as connection:
        await connection.push(ALERT)
        connection.h2.reset_stream(connection.begin(ALERT))
        connection.flush()
        assert (await connection.push(ALERT)).status == 200


async def test_split_and_empty_bodies(server: Apns) -> None:
    async with connected(server) as connection:
        server.fault("split_body", status=500)
        server.fault("empty_body", status=503)
        split, empty = await connection.push(ALERT), await connection.push(ALERT)
        assert (split.status, split.reason, len([one for one in split.frames if one])) == (
            *(500, "InternalServerError"),
            2,
        )
        assert (empty.status, empty.body) == (503, b"")


async def test_a_token_has_a_rate(server: Apns) -> None:
    server.simulator.registry.tell(*read_token({"token": ALERT, "state": "alive", "limit": 2, "seconds": 600}))
    async with connected(server) as connection:
        answers = [await connection.push(ALERT) for _ in range(3)]
        other = await connection.push("a" * 63 + "1")
    assert [(one.status, one.reason) for one in answers] == [(200, None), (200, None), (429, "TooManyRequests")]
    assert other.status == 200


# ---- what reaches a device when no answer comes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reached"),
    [
        ({"kind": "silent"}, 1),
        ({"kind": "silent", "delivered": False}, 0),
        ({"kind": "close"}, 1),
        ({"kind": "goaway"}, 1),
        ({"kind": "goaway", "last_stream_id": 1}, 0),
        ({"kind": "goaway", "delivered": False}, 0),
        ({"kind": "rst_stream"}, 0),
        ({"kind": "slow", "seconds": 3600}, 1),
        ({"kind": "status", "status": 503}, 0),
    ],
)
async def test_an_uncertain_push_has_reached_the_device_unless_told(
    server: Apns, fault: dict[str, Any], reached: int
) -> None:
    simulator = server.simulator
    simulator.fleet.describe(read_device({"id": "phone", "app": APP, "voip_token": VOIP}))
    async with connected(server) as connection:
        await connection.push(ALERT)
        server.fault(**fault)
        stream = connection.begin(VOIP, payload=CALL, headers=TO_VOIP)
        server.fault("status", status=200, token=ALERT)
        if fault["kind"] in ("silent", "slow"):
            await connection.push(ALERT)
        else:
            await connection.answer(stream)
    phone = simulator.fleet.find("phone")
    assert phone is not None
    assert phone.counts["delivered"] == reached


# ---- certificates ----------------------------------------------------------------------------------------------------


async def test_a_certificate_needs_no_token_and_has_many_streams_at_once(server: Apns, tmp_path: Path) -> None:
    async with connected(server, authorization=None, certificate=certificate(server, tmp_path)) as connection:
        await connection.allowed(1000)
        assert (await connection.push(ALERT)).status == 200
        assert (await connection.push(VOIP, payload=CALL, headers=TO_VOIP)).status == 200
        assert (await connection.push(ALERT, headers={"authorization": "bearer nonsense"})).status == 200
        assert server.simulator.stats()["provider_tokens"] == 0


@pytest.mark.parametrize(
    ("wanted", "topic", "answer"),
    [
        ({}, None, (400, "MissingTopic")),
        ({"topics": [APP]}, None, (200, None)),
        ({"topics": [APP]}, APP, (200, None)),
        ({"topics": [f"{APP}.voip", f"{APP}.complication"]}, APP, (400, "TopicDisallowed")),
        ({"app": "org.example.other"}, APP, (400, "TopicDisallowed")),
        ({"app": "org.example.other"}, "org.example.other", (400, "TopicDisallowed")),
        ({"topics": []}, APP, (403, "BadCertificate")),
        ({"revoked": True}, APP, (403, "BadCertificate")),
        ({"environments": ["sandbox"]}, APP, (403, "BadCertificateEnvironment")),
        ({"environments": []}, APP, (403, "BadCertificateEnvironment")),
        ({"environments": ["production"]}, APP, (200, None)),
    ],
)
async def test_what_a_certificate_is_good_for(
    server: Apns, tmp_path: Path, wanted: dict[str, Any], topic: str | None, answer: tuple[int, str | None]
) -> None:
    shown = certificate(server, tmp_path, **wanted)
    async with connected(server, authorization=None, certificate=shown) as connection:
        told = await connection.push(ALERT, headers={"apns-topic": topic})
    assert (told.status, told.reason) == answer
    assert server.log()[0]["topic"] == (topic or (APP if answer[0] == 200 else None))


def test_topics_are_written_as_apple_writes_them(tmp_path: Path) -> None:
    """In DER by hand: of each topic its text, then the sequence of its kinds; long lengths have a byte of their own."""
    long = "o" * 200
    wanted = Wanted(app=APP, topics=("a.b", "a.b.voip", long))
    pem = Senders(tmp_path, Environment.PRODUCTION).issue(wanted)
    found = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_oid(
        x509.ObjectIdentifier("1.2.840.113635.100.6.3.6")
    )
    kinds = b"\x0c\x03a.b" + b"0\x05\x0c\x03app" + b"\x0c\x08a.b.voip" + b"0\x06\x0c\x04voip"
    kinds += b"\x0c\x81\xc8" + long.encode() + b"0\x05\x0c\x03app"
    assert isinstance(found.value, x509.UnrecognizedExtension)
    assert found.value.value == b"0\x81" + bytes([len(kinds)]) + kinds
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    assert read(der).topics == wanted.topics


async def test_a_simulated_sandbox_takes_sandbox_certificates(tmp_path: Path) -> None:
    async with apns(environment=Environment.SANDBOX) as server:
        shown = certificate(server, tmp_path, environments=["sandbox"])
        async with connected(server, authorization=None, certificate=shown) as connection:
            assert (await connection.push(ALERT)).status == 200


async def test_another_authority_s_certificate_does_not_get_through_tls(server: Apns, tmp_path: Path) -> None:
    async with apns() as other:
        stranger = certificate(other, tmp_path)
        async with connected(server, authorization=None, certificate=stranger) as connection:
            await connection.closed.wait()  # TLS 1.3: the server's refusal comes after the client's side is done
        assert server.simulator.stats()["connections_opened"] == 0


async def test_a_sender_without_certificate_and_token_is_asked_for_the_token(server: Apns) -> None:
    async with connected(server, authorization=None) as connection:
        assert (await connection.push(ALERT)).reason == "MissingProviderToken"


async def test_an_alert_goes_to_the_device_that_was_described(server: Apns) -> None:
    fleet = server.simulator.fleet
    fleet.describe(read_device({"id": "phone", "app": APP, "alert_token": "beef", "online": False}))
    async with connected(server) as connection:
        answers = [
            await connection.push("beef", headers={"apns-collapse-id": "w"}),
            await connection.push("BEEF"),
            await connection.push("beef", payload=CALL, headers=TO_VOIP),
        ]
        server.simulator.registry.tell(*read_token({"token": "beef", "state": "unregistered", "timestamp": 7}))
        answers.append(await connection.push("beef"))
    assert [one.reason for one in answers] == [None, None, "DeviceTokenNotForTopic", "Unregistered"]
    phone = fleet.find("phone")
    assert phone is not None
    told = told_of(phone, server.simulator.now())
    assert (len(told["stored"]), told["counts"]["replaced"]) == (1, 1)
    assert told["stored"][0]["apns_id"] == server.log()[1]["apns_id"]
