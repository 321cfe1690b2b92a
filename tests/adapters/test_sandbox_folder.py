"""What a sandbox keeps: its folder, its ports, its secrets."""

import socket
from pathlib import Path

import pytest

from sync.sandbox import folder as module
from sync.sandbox.folder import DataFolderError, data_folder
from sync.sandbox.identity import keep, names, remember
from sync.sandbox.ports import hold, number


def test_one_data_folder_is_for_one_sandbox(tmp_path: Path) -> None:
    with data_folder(tmp_path), pytest.raises(DataFolderError, match="Another sandbox uses"), data_folder(tmp_path):
        pass
    with data_folder(tmp_path):
        pass


def test_a_folder_that_was_asked_for_is_kept(tmp_path: Path) -> None:
    with data_folder(tmp_path / "new") as folder:
        (folder / "kept").touch()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "kept").exists()


def test_folders_of_our_own_differ_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_project", lambda: tmp_path)
    (tmp_path / ".data" / "sandbox-1" / "left by a killed one").mkdir(parents=True)
    with data_folder(None) as one, data_folder(None) as other:
        assert one != other
        assert not list(one.iterdir())
    assert not list((tmp_path / ".data").iterdir())


def test_what_cannot_be_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataFolderError, match="Cannot use"), data_folder(tmp_path / "file" / "below"):
        pass


def test_a_held_port_is_for_its_server_only() -> None:
    (held,) = hold(1)
    with held, socket.create_server(("127.0.0.1", number(held))), socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", number(held)))


def test_ports_of_last_time_come_back_unless_taken() -> None:
    held = hold(3)
    before = [number(one) for one in held]
    for one in held:
        one.close()
    held = hold(3, before)
    assert [number(one) for one in held] == before
    for one in held:
        one.close()
    with socket.create_server(("127.0.0.1", before[1])):
        held = hold(3, before)
        assert before[1] not in [number(one) for one in held]
        for one in held:
            one.close()


def test_accounts_and_secrets_are_remembered(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.json"
    first = remember(file, accounts=2)
    keep(file, first)
    more = remember(file, accounts=6)
    assert list(more.accounts) == ["alice", "bob", "carol", "dave", "user5", "user6"]
    assert more.accounts["bob"] == first.accounts["bob"]
    assert more.postgres_password == first.postgres_password
    assert file.stat().st_mode & 0o777 == 0o600


def test_names() -> None:
    assert names(6) == ["alice", "bob", "carol", "dave", "user5", "user6"]
