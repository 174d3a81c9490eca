"""`yk doctor`: what it judges, and that it changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from yaoki.cli.doctor import journal, machine
from yaoki.cli.doctor.check import Level
from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import run

MOUNTS = "/dev/vda / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\nsrv:/x /mnt/nas nfs4 rw 0 0\n/dev/vdb /mnt/nas2 xfs rw 0 0\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


@pytest.mark.parametrize(("seconds", "level"), [(0.000_001, Level.WARN), (0.000_02, Level.OK), (0.004, Level.OK), (0.05, Level.NOTE)])
def test_a_sync_that_takes_no_time_did_not_happen(seconds: float, level: Level):
    assert machine.judged(seconds).level is level


def test_the_disk_really_is_asked_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    machine.fsync(tmp_path)
    assert len(synced) == machine.SYNCS
    assert not list(tmp_path.iterdir()), "what was written is removed"


@pytest.mark.parametrize(("path", "level"), [
    ("/home/me", Level.OK), ("/dev/shm/x", Level.WARN), ("/mnt/nas/deep", Level.BAD), ("/mnt/nas2", Level.OK), ("/mnt/nas3", Level.OK)])
def test_file_systems_are_told_by_the_longest_mount_point(tmp_path: Path, path: str, level: Level):
    (tmp_path / "mounts").write_text(MOUNTS)
    assert machine.filesystem(Path(path), str(tmp_path / "mounts")).level is level


def test_the_journals_file_is_found_in_its_url():
    assert machine.path_of("sqlite:///x.db") == Path.cwd() / "x.db"
    assert machine.path_of("sqlite:////var/x.db") == Path("/var/x.db")
    assert machine.path_of("postgresql://h/d") is None


@pytest.mark.parametrize(("encoding", "level"), [("utf-8", Level.OK), ("UTF8", Level.OK), ("ascii", Level.WARN), ("", Level.WARN)])
def test_a_terminal_without_boxes_is_told(encoding: str, level: Level):
    assert machine.terminal(encoding).level is level


def test_a_process_is_alive_or_not():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert journal.is_alive(os.getpid())
    assert not journal.is_alive(ended.pid)
    assert not journal.is_alive(0)


def test_all_is_well_where_there_is_nothing_yet_and_nothing_is_made(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["doctor", "--json"]) in {Exit.OK, Exit.FINDING}, "a test machine's disk may be slow or small"
    told = {each["check"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    assert told["journal"]["level"] == "note"
    assert told["python"]["level"] == told["sqlite"]["level"] == told["settings"]["level"] == "ok"
    assert not list(folder.iterdir())


def test_what_needs_attention_ends_with_1_and_says_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "yaoki.toml").write_text('sagas = ["nowhere:trip"]\ndb = "sqlite:///x.db"\n')
    (folder / "x.db").write_bytes(b"no database at all, but long enough to be looked at" * 50)
    assert run(["doctor"]) == Exit.FINDING
    text = capsys.readouterr().out
    assert "✗ journal      x.db is not a journal" in text
    assert "✗ saga         there is no module 'nowhere' here" in text
    assert "something needs attention" in text


def test_a_journal_that_cannot_be_read_through_is_damaged(tmp_path: Path):
    (tmp_path / "x.db").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 32)
    assert journal.whole(tmp_path / "x.db").level is Level.BAD
