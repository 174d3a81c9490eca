"""The SQLite journal against files that are cut, damaged, foreign, full, read-only or in use."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from random import Random

import pytest

from yaoki.errors import JournalError, JournalForeignError
from yaoki.saga.journal.port import Append, NewRun
from yaoki.saga.journal.sqlite import SqliteJournal
from yaoki.saga.records import Kind, Record


def record(text: str) -> Record:
    return Record(Kind.DONE, "step", text.encode() * 20, 1.0)


async def test_a_wal_cut_anywhere_keeps_every_record_acknowledged_before_the_cut(tmp_path: Path):
    path = tmp_path / "j.db"
    journal = SqliteJournal(path)
    await journal.open()
    acknowledged: list[tuple[int, int, int]] = []  # size of the WAL at the acknowledgement, run, records
    wal = Path(f"{path}-wal")
    rng = Random(7)
    for i in range(20):
        no = (await journal.create(NewRun(f"r{i}", "s", "h", b"{}"))).header.no
        acknowledged.append((wal.stat().st_size, i, 0))
        for seq in range(rng.randrange(4)):
            await journal.append(Append(no, seq, (record(f"{i}.{seq}"),)))
            acknowledged.append((wal.stat().st_size, i, seq + 1))
    copy = tmp_path / "copy"
    for trial in range(60):
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        cut = rng.randrange(wal.stat().st_size + 1) if trial else wal.stat().st_size
        shutil.copy(path, copy / "j.db")
        (copy / "j.db-wal").write_bytes(wal.read_bytes()[:cut])
        await check_cut(copy / "j.db", cut, acknowledged)
    await journal.close()


async def check_cut(path: Path, cut: int, acknowledged: list[tuple[int, int, int]]) -> None:
    survivor = SqliteJournal(path)
    await survivor.open()
    try:
        for run in range(20):
            due = max((records for size, r, records in acknowledged if r == run and size <= cut), default=None)
            stored = await survivor.read(f"r{run}")
            if due is None:
                continue
            assert stored is not None, f"run {run} was acknowledged before byte {cut}, and is gone"
            assert len(stored.records) >= due
            for seq, each in enumerate(stored.records):
                assert each.data == f"{run}.{seq}".encode() * 20, "a record is damaged"
    finally:
        await survivor.close()


async def test_a_file_of_another_program_is_refused_and_not_touched(tmp_path: Path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE customers (name TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(JournalForeignError, match="another program"):
        await SqliteJournal(path).open()
    shutil.rmtree(tmp_path / "nothing", ignore_errors=True)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("customers",)]
    other.close()
    assert path.read_bytes()[100:] == before[100:]


async def test_a_damaged_file_is_refused(tmp_path: Path):
    path = tmp_path / "j.db"
    path.write_bytes(b"this is no database, it is a poem about one" * 100)
    with pytest.raises(JournalForeignError):
        await SqliteJournal(path).open()


async def test_a_newer_journal_is_refused_with_both_versions(tmp_path: Path):
    path = tmp_path / "j.db"
    journal = SqliteJournal(path)
    await journal.open()
    await journal.close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(JournalForeignError, match="99"):
        await SqliteJournal(path).open()


async def test_a_folder_that_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(JournalError, match="there is no folder"):
        await SqliteJournal(tmp_path / "no" / "such" / "j.db").open()


async def test_a_folder_in_which_nothing_can_be_written_is_said():
    with pytest.raises(JournalError, match="cannot") as caught:
        await SqliteJournal("/proc/yaoki.db").open()  # not even by root
    assert caught.value.do


async def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path):
    journal = SqliteJournal(tmp_path / "j.db")
    await journal.open()
    no = (await journal.create(NewRun("a", "s", "h", b"{}"))).header.no
    # SQLite's own limit on pages stands in for the end of the disk: the same error comes out of the same call.
    await journal._call(lambda c: c.execute(f"PRAGMA max_page_count = {c.execute('PRAGMA page_count').fetchone()[0] + 2}"))
    seq = 0
    with pytest.raises(JournalError, match="no space left") as caught:
        for seq in range(10_000):
            await journal.append(Append(no, seq, (record("x" * 100),)))
    assert "nothing was lost" in caught.value.do
    await journal.close()
    again = SqliteJournal(tmp_path / "j.db")
    await again.open()
    stored = await again.read("a")
    assert stored is not None
    assert len(stored.records) == seq
    await again.close()
