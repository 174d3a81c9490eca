"""Any broker of `yaoki.messages` can be a sink and a source of an audit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yaoki.errors import AuditError, ConfigError
from yaoki.ledger import Deliverer, Ledger, Rules, Watch
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.notes import load_findings
from yaoki.ledger.pipelines import Pipeline, broker_of, open_audit
from yaoki.ledger.sinks.broker import BrokerSink
from yaoki.ledger.sinks.receipts import Receipts
from yaoki.ledger.sources.ledger import LedgerSource
from yaoki.messages.brokers.opening import open_broker
from yaoki.messages.brokers.port import Delivery
from yaoki.messages.envelope import Message

RULES = Rules(slo_s=0.001, clock_error_s=0, beat_every_s=60, seal_every_s=1, hold_s=0, audit_every_s=1, listing_s=1)
KIND = "PointsChanged"


@pytest.fixture(params=["sqlite", pytest.param("nats", marks=pytest.mark.live)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/messages.db" if request.param == "sqlite" else str(request.getfixturevalue("nats_url"))


@pytest.fixture
def sink(url: str, tmp_path: Path) -> Callable[[], BrokerSink]:
    connect, name, kind = broker_of(f"broker+{url}#{KIND}")
    return lambda: BrokerSink(connect, name, Receipts(str(tmp_path / "receipts.db")), kind=kind)


async def test_what_is_delivered_comes_back_byte_for_byte_and_a_loss_is_named(sink: Callable[[], BrokerSink], tmp_path: Path) -> None:
    lossy = sink()
    await lossy.open()
    async with Ledger(f"sqlite:///{tmp_path}/l.db", partitions=2) as ledger:
        async with ledger.tx() as tx:
            await tx.append_many([("a", {"n": 1}), ("a", b"\xff no JSON \0"), ("käse/#", b' {"spaced":  1} '), ("b", "x")])
        await ledger.beat()
        await ledger.seal()
        put = lossy.put

        async def losing(key: str, version: int, content: bytes, digest: bytes) -> bool:
            return True if (key, version) == ("a", 2) else await put(key, version, content, digest)

        lossy.put = losing  # type: ignore[method-assign]
        await Deliverer(ledger, lossy).deliver()
        watch = Watch(ledger.store, LedgerSource(ledger), lossy, RULES)
        await watch.look(whole=True)
        assert [(each.kind, each.key, each.version) for each in await load_findings(ledger.store)] == [("missing", "a", 2)]
        await lossy.close()
        again = sink()  # another process: what was read before is remembered
        await again.open()
        await again.put("b", 1, b'"x"', content_digest(b'"x"'))  # the same message again is the same version
        assert await LedgerSource(ledger).redeliver([("a", 2)], again) == {}
        watch = Watch(ledger.store, LedgerSource(ledger), again, RULES, owner=watch._owner)
        await watch.look(whole=True, repaired=[("a", 2)])
        assert await load_findings(ledger.store) == []
        await again.close()


async def test_a_listing_ends_while_others_go_on_publishing(tmp_path: Path) -> None:
    class Busy:
        """Whenever it is asked, somebody has just published."""

        fetched = 0

        async def subscribe(self, *_: object) -> Busy:
            return self

        async def fetch(self, *_: object) -> list[Delivery]:
            self.fetched += 1
            assert self.fetched < 100, "it goes on and on"
            at = 1.0 if self.fetched == 1 else time.time() + 1.0
            headers = {"ledgerversion": str(self.fetched)}
            return [Delivery(Message(id=str(self.fetched), source="ledger", type=KIND, key="a", time=at, headers=headers))]

        async def ack(self, *_: object) -> None: ...

        async def close(self) -> None: ...

    async def connect() -> Any:
        return Busy()

    sink = BrokerSink(connect, "busy", Receipts(str(tmp_path / "receipts.db")), kind=KIND)
    await sink.open()
    assert [(batch.keys, batch.versions) async for batch in sink.listing()] == [(["a", "a"], [1, 2])]
    await sink.close()


async def test_anybodys_messages_are_a_source(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broker = await open_broker(url)
    bodies = [b'{"rev": %d, "points": 5}' % n for n in range(1, 4)]
    await broker.publish([Message(id=f"m{n}", source="shop", type=KIND, key="A1", data=body) for n, body in enumerate(bodies)])
    await broker.publish([Message(id="odd", source="shop", type=KIND, key="A1", data=b'{"points": 5}'),
                          Message(id="other", source="shop", type="SomethingElse", key="A1", data=b'{"rev": 9}')])
    (tmp_path / "archive").mkdir()
    for version in (1, 3):
        (tmp_path / "archive" / f"A1-{version}.log").write_bytes(bodies[version - 1])
    chosen: dict[str, Any] = {"source": f"broker+{url}#{KIND}", "sink": "archive/{key}-{version}.log", "version": "rev",
                              "state": "audit.db", "rules": RULES}
    async with open_audit(Pipeline(**chosen)) as watch:
        await watch.look(whole=True)
        open_ones = {(each.kind, each.key, each.version) for each in watch.auditor.book.open_ones()}
        assert ("missing", "A1", 2) in open_ones
        assert ("lint:unreadable", "", -1) in open_ones
        assert await watch.source.redeliver([("A1", 2)], watch.sink) == {}
        assert (tmp_path / "archive" / "A1-2.log").read_bytes() == bodies[1]
    async with open_audit(Pipeline(**chosen)) as watch:  # acknowledged, and remembered
        await watch.look(whole=True)
        assert not [each for each in watch.auditor.book.open_ones() if each.version >= 0]
    await broker.close()


async def test_a_broker_that_is_not_there_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="names no type"):
        broker_of("broker+nats://127.0.0.1:4222")
    with pytest.raises(AuditError, match="cannot be used"):
        async with open_audit(Pipeline(source="sqlite:///l.db", sink="broker+sqlite:////nowhere/at/all.db#X", rules=RULES)):
            pass
    with pytest.raises(AuditError, match="cannot be used"):
        async with open_audit(Pipeline(source="broker+sqlite:////nowhere/at/all.db#X", sink="a/{key}-{version}", rules=RULES)):
            pass
