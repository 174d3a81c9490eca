"""Checksums of a SQLite journal: whatever is changed behind its back is an error that names the run, and others are whole."""

from __future__ import annotations

import sqlite3

import pytest

from yaoki.errors import JournalDamagedError
from yaoki.saga.journal.port import Append, NewRun
from yaoki.saga.journal.sqlite import SqliteJournal
from yaoki.saga.records import Kind, Record

DAMAGES = {
    "a result": ("UPDATE record SET data = x'32' WHERE run = 1 AND seq = 1", r"record 1 \(done of b\) does not fit"),
    "a name": ("UPDATE record SET step = 'c' WHERE run = 1 AND seq = 1", r"record 1 \(done of c\) does not fit"),
    "what it says": ("UPDATE record SET kind = 'undone' WHERE run = 1 AND seq = 0", r"record 0 \(undone of a\) does not fit"),
    "a word nobody knows": ("UPDATE record SET kind = 'dome' WHERE run = 1 AND seq = 0", r"record 0 \(dome of a\) does not fit"),
    "its place": ("UPDATE record SET seq = 7 WHERE run = 1 AND seq = 1", "record 1 is missing"),
    "a record that is gone": ("DELETE FROM record WHERE run = 1 AND seq = 0", "record 0 is missing"),
    "its input": ("UPDATE run SET input = x'7b7c' WHERE no = 1", "what it was started with does not fit"),
}


async def written(path) -> None:
    journal = SqliteJournal(path, durability="process")
    await journal.open()
    for name in ("one", "two"):
        header = (await journal.create(NewRun(name, "trip", "h", b"{}", at=1.0))).header
        await journal.append(Append(header.no, 0, (Record(Kind.DONE, "a", b"1", 1.0), Record(Kind.DONE, "b", b"22", 1.0)), at=2.0))
    await journal.close()


@pytest.mark.parametrize("what", DAMAGES)
async def test_a_damaged_run_is_named_and_the_others_are_whole(tmp_path, what):
    path = tmp_path / "journal.db"
    await written(path)
    statement, said = DAMAGES[what]
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()
    journal = SqliteJournal(path, durability="process")
    await journal.open()
    with pytest.raises(JournalDamagedError, match=said) as caught:
        await journal.read("one")
    assert caught.value.run_id == "one"
    whole = await journal.read("two")
    assert whole is not None
    assert [record.step for record in whole.records] == ["a", "b"]
    assert [(stored.header.id, bool(stored.damage)) for stored in await journal.take(10)] == [("one", True), ("two", False)]
    await journal.close()
