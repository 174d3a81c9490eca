"""A pipeline that Yaoki does not run (table, stream, trigger, sink) under every fault of streams: the auditor names exactly what is lost.

The ledger is the table: every version that is written is captured by the stream in the write itself. A trigger reads the shards
and stores each version at rest, as a function behind a stream does. The audit compares the two, and knows nothing of the stream.
"""

from __future__ import annotations

import asyncio
import base64

import pytest

from simulation.kit import retried
from simulation.test_ledger_explored import Durable, StoreSink
from yaoki import runtime
from yaoki.explore import Explorer, FakeStore, FakeStream, Scenario, World, explore, replay
from yaoki.explore.streams import PositionExpiredError
from yaoki.ledger import Ledger, Rules, Watch
from yaoki.ledger import findings as kinds
from yaoki.ledger.epochs import beat_key
from yaoki.ledger.sources.ledger import LedgerSource
from yaoki.ledger.verdicts import LOSS, SKIPPED_INTERVAL, TRIGGER_STUCK

RULES = Rules(slo_s=4, beat_every_s=5, seal_every_s=1, hold_s=0, audit_every_s=5, listing_s=1, clock_error_s=0)
WRITES = {3: "a", 9: "b", 15: "a", 16: "b", 22: "a"}  # second → key
LENGTH_S = 26
AFTER_S = 14


class Pipeline:
    """The programs of one universe, and what the auditor said."""

    def __init__(self, *, follows: bool = True, resets_to_newest: bool = False) -> None:
        self.changes = FakeStream("changes")
        self.places = FakeStore("places")
        self.sink = StoreSink()
        self.follows = follows
        self.resets_to_newest = resets_to_newest
        self.captured: dict[str, int] = {}
        self.verdicts: list[str] = []
        self.lost: set[tuple[str, int]] = set()
        self.findings: dict[tuple[str, str, int], str] = {}

    # ── the table ──

    async def write(self, world: World) -> None:
        self.captured.clear()
        self.verdicts.clear()
        self.findings.clear()
        async with Ledger(Durable(world), partitions=1) as ledger:
            watch = Watch(ledger.store, LedgerSource(ledger), self.sink, RULES)
            for second in range(LENGTH_S + AFTER_S):
                if second % 5 == 0:
                    await ledger.beat()
                if second in WRITES:
                    async with ledger.tx() as tx:
                        await tx.append(WRITES[second], f"{WRITES[second]} at {second}".encode())
                await self._capture(ledger)
                await ledger.seal("table")
                await world.sleep(1.0)
                if second % 5 == 4:
                    await self._look(watch)

    async def _capture(self, ledger: Ledger) -> None:
        """What a table does with its stream: each version, once, in order; heartbeats are versions, too."""
        beat = await ledger.version(beat_key(0))
        for key, newest in [*await ledger.keys(), *([(beat_key(0), beat.version)] if beat is not None else [])]:
            for version in range(self.captured.get(key, -1) + 1, newest + 1):
                content = (await ledger.contents([(key, version)])).get((key, version))
                if content is not None:
                    self.changes.capture(key, {"key": key, "version": version, "content": base64.b64encode(content).decode()})
            self.captured[key] = newest

    # ── the trigger ──

    async def trigger(self) -> None:
        places: dict[str, int] = {"s0": 0}
        while True:
            for shard in list(places):
                try:
                    page = await retried(lambda: self.changes.read(shard, places[shard], wait_s=0.0), attempts=1)  # noqa: B023  called at once
                except PositionExpiredError:
                    places[shard] = len(self.changes.channel.shards[shard].records) if self.resets_to_newest else self.places.rows.get(shard, 0)
                    continue
                for record in page.records:
                    each = record.data
                    await retried(lambda: self.sink.put(each["key"], each["version"], base64.b64decode(each["content"]), b""))  # noqa: B023  as above
                if page.next != places[shard]:
                    await retried(lambda: self.places.put(shard, page.next))  # noqa: B023  as above
                places[shard] = page.next
                if page.closed:
                    del places[shard]
                    if self.follows:
                        children = await retried(self.changes.shards)
                        places.update({name: 0 for name, parent in children if parent == shard})
            await runtime.sleep(0.5)

    # ── the audit ──

    async def _look(self, watch: Watch) -> None:
        self.verdicts += [verdict.kind for verdict in await watch.look(whole=True)]
        self.findings = {(each.kind, each.key, each.version): each.state for each in watch.auditor.book.open_ones() if each.version >= 0}

    # ── the truth ──

    def look_for_what_is_lost(self) -> set[tuple[str, int]]:
        rows = self.sink.store.rows
        written = [(key, version) for key in ("a", "b") for version in range(1, list(WRITES.values()).count(key) + 1)]
        self.lost = {(key, version) for key, version in written if f"{key}-{version}" not in rows}
        return self.lost

    def named(self) -> set[tuple[str, int]]:
        return {(key, version) for kind, key, version in self.findings if kind == kinds.MISSING and key in {"a", "b"}}


def scenario(pipeline: Pipeline) -> Scenario:
    async def main(world: World) -> None:
        world.start("trigger", pipeline.trigger, daemon=True)
        await pipeline.write(world)

    def the_audit_names_exactly_what_is_lost(world: World) -> str:
        lost, named = pipeline.look_for_what_is_lost(), pipeline.named()
        return "" if lost == named else f"lost: {sorted(lost)}; named as missing: {sorted(named)}"

    return Scenario(main, name="pipeline", invariants=[the_audit_names_exactly_what_is_lost], faults=["stream", "stream.gap"], same_answer=False,
                    most_calls=2000, most_per_site=500, timed=True)


def test_whatever_the_stream_does_the_audit_names_what_is_lost_and_nothing_else():
    report = Explorer(scenario(Pipeline()), depth=1, share=(1, 5)).run()  # every fifth; `--long` runs all of them
    assert report.ok, report.text(matrix=False)
    assert report.kinds >= {"stream.gap", "stream.stuck", "stream.shard_stuck", "stream.shard_split", "stream.iterator_expired", "stream.replay"}


@pytest.mark.parametrize(("settings", "kinds"), [({"follows": False}, ["stream.shard_split"]), ({"resets_to_newest": True}, ["stream.iterator_expired"])],
                         ids=["does not follow a split", "starts again at the newest"])
def test_what_a_careless_trigger_loses_is_named_too(settings, kinds):
    report = explore(scenario(Pipeline(**settings)), faults=1, kinds=kinds)
    assert report.ok, report.text(matrix=False)


@pytest.mark.long
@pytest.mark.parametrize("settings", [{}, {"follows": False}, {"resets_to_newest": True}])
def test_every_fault_of_streams_at_every_read(settings):
    report = explore(scenario(Pipeline(**settings)), faults=1)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted


def after(fault: str, **settings: bool) -> Pipeline:
    pipeline = Pipeline(**settings)
    replay(scenario(pipeline), f"yk1:changes.read s0@3={fault}")
    return pipeline


def test_a_quiet_stream_raises_no_alarm():
    pipeline = Pipeline()
    replay(scenario(pipeline), "yk1:none")
    assert set(pipeline.verdicts) <= {"QUIET", "FLOWING", "UNKNOWN"}, pipeline.verdicts
    assert not pipeline.findings


@pytest.mark.parametrize("fault", ["stream.stuck", "stream.shard_stuck"])
def test_a_trigger_that_stands_still_is_told_from_nothing_having_changed(fault):
    assert TRIGGER_STUCK in after(fault).verdicts


def test_a_skipped_interval_is_named_and_so_is_each_version_in_it():
    pipeline = after("stream.gap")
    assert pipeline.lost == pipeline.named()
    assert {SKIPPED_INTERVAL, LOSS} & set(pipeline.verdicts) or not pipeline.lost


def test_what_comes_again_changes_nothing():
    pipeline = after("stream.replay")
    assert not pipeline.lost
    assert not pipeline.named()


def test_a_split_that_nobody_follows_loses_what_comes_after_and_the_audit_says_so():
    pipeline = after("stream.shard_split", follows=False)
    assert pipeline.lost
    assert pipeline.named() == pipeline.lost


def test_an_audit_that_looks_away_is_found(monkeypatch):
    """The check can fail: an auditor that finds nothing is not taken for a healthy pipeline."""

    async def nothing(watch, *, whole=False):
        await asyncio.sleep(0)
        return []

    monkeypatch.setattr(Watch, "look", nothing)
    assert explore(scenario(Pipeline(follows=False)), faults=1, kinds=["stream.shard_split"], most_broken=1).found
