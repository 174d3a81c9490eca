"""Other people's tables, queues and streams: what they wrote and the sink has not is named, and repaired where a copy exists."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import boto3
import nats
import pytest
from moto import mock_aws

from servers import running_postgres
from yaoki.errors import AuditError, ConfigError, InputError
from yaoki.ledger import Rules
from yaoki.ledger.findings import LATE, REORDERED
from yaoki.ledger.pipelines import Pipeline, open_audit, split_path
from yaoki.ledger.repair import repair
from yaoki.ledger.sources.pgoutput import Decoder

# Long enough under way to be due at once.
RULES = Rules(slo_s=0.001, clock_error_s=0, beat_every_s=1, seal_every_s=1, hold_s=0, audit_every_s=1, listing_s=1)
LATER = 0.05


async def audit(source: str, folder: Path, *, repairs: bool = False, **more: Any) -> list[tuple[str, str, int, str]]:
    """Audit into the folder `sink`, twice, so that what was new the first time is due; (kind, key, version, state)."""
    chosen = Pipeline(source=source, sink=f"{folder}/sink/{{key}}-{{version}}.log", state=str(folder / "audit.db"),
                      rules=RULES, **more)
    async with open_audit(chosen) as watch:
        await watch.look(whole=True)
        await asyncio.sleep(LATER)
        await watch.look(whole=True)
        if repairs:
            await repair(watch)
        # With an SLO of a millisecond nearly everything is late, too, which is not what these tests are about.
        return [(each.kind, each.key, each.version, each.state) for each in watch.auditor.book
                if each.version >= 0 and each.kind not in {LATE, REORDERED}]


def arrive(folder: Path, *names: tuple[str, int], content: bytes = b"x") -> None:
    (folder / "sink").mkdir(exist_ok=True)
    for key, version in names:
        (folder / "sink" / f"{key}-{version}.log").write_bytes(content)


def outbox(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE outbox (thing TEXT, rev INTEGER, payload TEXT)")
    database.executemany("INSERT INTO outbox VALUES (?, ?, ?)", [("a", 1, "one"), ("a", 2, "two"), ("b", 1, "uno")])
    database.commit()
    return database


async def test_an_outbox_of_others_is_audited_and_repaired_from_its_rows(tmp_path: Path) -> None:
    outbox(tmp_path / "theirs.db").close()
    arrive(tmp_path, ("a", 1), content=b"one")
    arrive(tmp_path, ("b", 1), content=b"something else")
    found = await audit(f"sqlite:///{tmp_path}/theirs.db#outbox", tmp_path, key="thing", version="rev", repairs=True)
    assert sorted(found) == [("corrupt", "b", 1, "open"), ("missing", "a", 2, "closed")]
    assert (tmp_path / "sink" / "a-2.log").read_text() == "two"
    assert (tmp_path / "sink" / "b-1.log").read_bytes() == b"something else"


async def test_a_name_that_no_row_explains_is_extra(tmp_path: Path) -> None:
    outbox(tmp_path / "theirs.db").close()
    arrive(tmp_path, ("ghost", 9))
    found = await audit(f"sqlite:///{tmp_path}/theirs.db#outbox", tmp_path, key="thing", version="rev")
    assert ("extra", "ghost", 9, "open") in found


async def test_a_table_of_newest_versions_says_what_existed_before(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "theirs.db") as database:
        database.execute("CREATE TABLE things (thing TEXT PRIMARY KEY, rev INTEGER)")
        database.execute("INSERT INTO things VALUES ('A000001', 5)")
    database.close()
    arrive(tmp_path, *(("A000001", n) for n in (1, 2, 5)))
    found = await audit(f"sqlite:///{tmp_path}/theirs.db#things", tmp_path, key="thing", version="rev", repairs=True)
    assert found == [("missing", "A000001", 3, "lost"), ("missing", "A000001", 4, "lost")]  # named, and plainly not repairable


@pytest.mark.live
async def test_a_postgres_outbox_and_its_abandoned_slot(postgres: str, tmp_path: Path) -> None:
    database = await asyncpg.connect(postgres)
    await database.execute("CREATE TABLE outbox (id bigserial, key TEXT, version BIGINT, payload BYTEA)")
    await database.executemany("INSERT INTO outbox (key, version, payload) VALUES ($1, $2, $3)",
                               [("a", 1, b"one"), ("a", 2, b"two")])
    await database.close()
    arrive(tmp_path, ("a", 1), content=b"one")
    assert await audit(f"{postgres}#outbox", tmp_path, repairs=True) == [("missing", "a", 2, "closed")]
    with pytest.raises(AuditError, match="has no column rev; it has id, key, version, payload"):
        await audit(f"{postgres}#outbox", tmp_path, version="rev")
    with pytest.raises(AuditError, match="there is no table nothing"):
        await audit(f"{postgres}#nothing", tmp_path)


@pytest.fixture
def logical() -> Iterator[str]:
    """A PostgreSQL server that decodes its log."""
    with running_postgres(settings="-c fsync=off -c wal_level=logical") as server:
        yield server.new_database()


@pytest.mark.live
async def test_a_postgres_table_of_newest_versions_is_read_by_a_slot(logical: str, tmp_path: Path) -> None:
    database = await asyncpg.connect(logical)
    await database.execute("CREATE TABLE points (key TEXT PRIMARY KEY, version BIGINT, payload TEXT)")
    source = f"{logical}#points"
    assert await audit(source, tmp_path, slot="yaoki_audit") == []  # makes the slot
    await database.execute("INSERT INTO points VALUES ('it''s', 1, 'one')")
    for version in (2, 3):
        await database.execute("UPDATE points SET version = $1, payload = $2", version, f"change {version}")
    await database.execute("CREATE TABLE other (key TEXT); INSERT INTO other VALUES ('x'); DELETE FROM points")
    arrive(tmp_path, ("it's", 1), content=b"one")
    arrive(tmp_path, ("it's", 3), content=b"change 3")
    assert await audit(source, tmp_path, slot="yaoki_audit", repairs=True) == [("missing", "it's", 2, "closed")]
    assert (tmp_path / "sink" / "it's-2.log").read_text() == "change 2"  # the table forgot it long ago
    await database.close()


def relation(number: int, name: str, *columns: str) -> bytes:
    body = b"".join(b"\0" + column.encode() + b"\0" + struct.pack(">Ii", 25, -1) for column in columns)
    return b"R" + struct.pack(">I", number) + b"public\0" + name.encode() + b"\0d" + struct.pack(">h", len(columns)) + body


def values(*texts: str | None) -> bytes:
    return struct.pack(">h", len(texts)) + b"".join(
        b"n" if text is None else b"t" + struct.pack(">i", len(text.encode())) + text.encode() for text in texts)


def test_decoded_changes_are_read() -> None:
    decoder = Decoder()
    assert decoder.row(b"B" + bytes(20)) is None
    assert decoder.row(relation(7, "points", "key", "version", "big")) is None
    assert decoder.row(b"I" + struct.pack(">I", 7) + b"N" + values("käse", "1", "x")) == (
        "public.points", {"key": "käse", "version": "1", "big": "x"})
    moved = b"U" + struct.pack(">I", 7) + b"K" + values("a", None, None) + b"N" + values("b", "2", None)
    assert decoder.row(moved) == ("public.points", {"key": "b", "version": "2", "big": None})
    assert decoder.row(b"D" + struct.pack(">I", 7) + b"K" + values("b", None, None)) is None
    decoder.row(relation(7, "points", "key", "added"))  # the table was altered
    assert decoder.row(b"I" + struct.pack(">I", 7) + b"N" + values("a", "y")) == ("public.points", {"key": "a", "added": "y"})


async def test_bad_input_gets_a_clear_error(tmp_path: Path) -> None:
    with outbox(tmp_path / "theirs.db") as database:
        database.execute("INSERT INTO outbox VALUES ('c', 'seven', '')")
    database.close()
    with pytest.raises(InputError, match="column rev of 'c' in outbox: a version must be a whole number"):
        await audit(f"sqlite:///{tmp_path}/theirs.db#outbox", tmp_path, key="thing", version="rev")
    with pytest.raises(AuditError, match="cannot be opened"):
        await audit(f"sqlite:///{tmp_path}/nothing.db#outbox", tmp_path)
    for source in ("mysql://x", "sqlite:///x.db#drop table", "dynamodb://t"):
        with pytest.raises((ConfigError, AuditError)):
            async with open_audit(Pipeline(source=source, sink=f"{tmp_path}/{{key}}.log")):
                pass
    assert split_path("/var/logs/{key}/{version}.log") == (Path("/var/logs"), "{key}/{version}.log")
    assert split_path("{key}-{version}") == (Path(), "{key}-{version}")


# ── queues and streams ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_second_queue_of_a_topic_remembers_what_the_consumer_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        sqs = boto3.client("sqs", region_name="us-east-1")
        url = sqs.create_queue(QueueName="audit")["QueueUrl"]
        plain = json.dumps({"key": "a", "version": 1})
        sqs.send_message(QueueUrl=url, MessageBody=plain)
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps(
            {"Type": "Notification", "Message": json.dumps({"key": "a", "version": 2})}))
        sqs.send_message(QueueUrl=url, MessageBody="not for us")
        arrive(tmp_path, ("a", 1), content=plain.encode())
        found = await audit("sqs://audit", tmp_path, repairs=True, region="us-east-1")
        assert found == [("missing", "a", 2, "closed")]
        assert json.loads((tmp_path / "sink" / "a-2.log").read_bytes()) == {"key": "a", "version": 2}
        with pytest.raises(AuditError, match="get_queue_url failed"):
            await audit("sqs://nowhere", tmp_path, region="us-east-1")


@pytest.mark.live
async def test_a_stream_is_audited_by_its_sequence_without_a_consumer(nats_url: str, tmp_path: Path) -> None:
    client = await nats.connect(nats_url)
    stream = client.jetstream()
    await stream.add_stream(name="HISTORY", subjects=["history.*"])
    for version in (1, 2, 3):
        await stream.publish("history.a", b"change %d" % version, headers={"version": str(version)})
    await client.close()
    arrive(tmp_path, ("history.a", 1), content=b"change 1")
    arrive(tmp_path, ("history.a", 3), content=b"change 3")
    assert await audit(f"{nats_url}/HISTORY", tmp_path, repairs=True) == [("missing", "history.a", 2, "closed")]
    assert (tmp_path / "sink" / "history.a-2.log").read_bytes() == b"change 2"
    with pytest.raises(AuditError, match="NOWHERE"):
        await audit(f"{nats_url}/NOWHERE", tmp_path)
