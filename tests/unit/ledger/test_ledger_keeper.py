"""A ledger, its keeper and a sink on virtual time: days pass in moments, and everything that happens is on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from virtual_time import Clock
from yaoki import events, runtime
from yaoki.errors import AuditError, FencedError, RepairRefusedError, UsageError
from yaoki.ledger import Keeper, Ledger, Rules, compare, rounds, verdicts
from yaoki.ledger import findings as kinds
from yaoki.ledger.findings import Finding
from yaoki.ledger.notes import load_findings, load_progress
from yaoki.ledger.repair import repair
from yaoki.ledger.service import DRILL_KEY
from yaoki.ledger.sinks.memory import MemorySink
from yaoki.ledger.sources.ledger import LedgerSource
from yaoki.ledger.watch import BEATS_JUDGED, Watch

RULES = Rules(slo_s=20, beat_every_s=10, seal_every_s=5, hold_s=5, audit_every_s=10, listing_s=1, clock_error_s=1)


class Stage:
    """The ledger, its keeper, one sink, and time."""

    def __init__(self, ledger: Ledger, clock: Clock, **settings: object) -> None:
        self.ledger = ledger
        self.clock = clock
        self.sink = MemorySink()
        self.keeper = Keeper(ledger, [self.sink], RULES, **settings)  # type: ignore[arg-type]
        self.watch = self.keeper.watches[0]
        self.seen: list[str] = []

    async def write(self, *keys: str) -> None:
        async with self.ledger.tx() as tx:
            await tx.append_many([(key, {"at": self.clock.now}) for key in keys])

    async def wait(self, seconds: float) -> None:
        for _ in range(int(seconds / 5)):
            await self.keeper.turn()
            self.seen.append(self.watch.auditor.worst())
            self.clock.now += 5

    async def findings(self, kind: str = "") -> list[Finding]:
        return [each for each in await load_findings(self.ledger.store, everything=True) if each.kind.startswith(kind)]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    clock = Clock()
    with runtime.use(clock):
        async with Ledger(f"sqlite:///{tmp_path}/l.db", partitions=2) as ledger:
            yield Stage(ledger, clock)


async def test_a_day_in_which_nothing_changes_raises_nothing(stage: Stage) -> None:
    rules = Rules(slo_s=1200, beat_every_s=600, seal_every_s=600, audit_every_s=600)
    keeper, seen = Keeper(stage.ledger, [stage.sink], rules), []
    for _ in range(24 * 6):
        await keeper.turn()
        seen.append(keeper.watches[0].auditor.worst())
        stage.clock.now += 600
    assert set(seen) == {verdicts.QUIET}
    assert await stage.findings() == []
    assert len(stage.sink.contents) <= 2 * (BEATS_JUDGED + 2)  # beats that have served do not pile up


async def test_versions_flow_to_the_sink_and_nothing_is_raised(stage: Stage) -> None:
    for _ in range(12):
        await stage.write("a", "b", "a")
        await stage.wait(10)
    await stage.wait(60)
    assert {name for name in stage.sink.contents if not name[0].startswith("__beat")} == \
        {("a", n) for n in range(1, 25)} | {("b", n) for n in range(1, 13)}
    assert verdicts.FLOWING in stage.seen
    assert set(stage.seen) <= {verdicts.FLOWING, verdicts.QUIET, verdicts.UNKNOWN}
    assert await stage.findings() == []
    assert (await load_progress(stage.ledger.store, "memory")).audited_through > 0


async def test_a_consumer_that_drops_is_found_named_and_repaired_within_the_bound(stage: Stage) -> None:
    await stage.write("A000001", "A000001")
    await stage.wait(100)
    stage.sink.losing = True
    await stage.write("A000001", "A000001")
    began = stage.clock.now
    await stage.wait(15)
    stage.sink.losing = False
    await stage.write("A000001")
    await stage.wait(RULES.loss_bound_s + 40)
    found = await stage.findings(kinds.MISSING)
    assert [(each.key, each.version, each.state) for each in found] == [("A000001", 3, "closed"), ("A000001", 4, "closed")]
    assert all(each.opened_at - 1_700_000_000 - began <= RULES.loss_bound_s for each in found)
    assert all(each.note == "repaired; read again from the sink" for each in found)
    assert {("A000001", n) for n in range(1, 6)} <= set(stage.sink.contents)
    assert {verdicts.SKIPPED_INTERVAL, verdicts.LOSS} & set(stage.seen)
    await stage.wait(60)
    assert stage.seen[-1] == verdicts.QUIET  # the skipped beats are accounted for: all versions among them were compared


def without_repairs(stage: Stage) -> None:
    stage.keeper = Keeper(stage.ledger, [stage.sink], RULES, repairs=False, owner=stage.watch._owner)
    stage.watch = stage.keeper.watches[0]


async def test_what_arrives_too_late_is_on_record_without_an_alarm(stage: Stage) -> None:
    await stage.wait(60)
    without_repairs(stage)
    stage.sink.refusing = {"a"}
    await stage.write("a", "b")
    await stage.wait(RULES.slo_s + 15)
    assert [(each.kind, each.state) for each in await stage.findings()] in ([], [(kinds.MISSING, kinds.OPEN)])
    stage.sink.refusing = set()
    await stage.wait(120)
    (finding,) = await stage.findings()
    assert (finding.kind, finding.key, finding.version, finding.state) == (kinds.LATE, "a", 1, kinds.CLOSED)
    assert "s after it was written" in finding.note


@pytest.mark.parametrize("apart_s", [0, 10, 20])
async def test_what_arrives_after_a_later_version_is_on_record(stage: Stage, apart_s: int) -> None:
    await stage.wait(60)
    await stage.write("a", "b")
    await stage.wait(apart_s)
    await stage.write("a", "b")
    await stage.wait(5)
    at = stage.sink.times["a", 2]
    stage.sink.times["a", 1] = at + 3  # though the rows were due at different looks, if they are 10 s apart
    await stage.wait(120)
    late = {(kinds.LATE, "a", 1, kinds.CLOSED)} if apart_s == 20 else set()
    assert {(each.kind, each.key, each.version, each.state) for each in await stage.findings()} == {
        (kinds.REORDERED, "a", 1, kinds.CLOSED), *late}


async def test_a_lost_version_that_comes_after_a_later_one_is_both_late_and_out_of_order(stage: Stage) -> None:
    await stage.wait(60)
    without_repairs(stage)
    stage.sink.losing = True
    await stage.write("a")
    await stage.wait(5)
    stage.sink.losing = False
    await stage.write("a")
    await stage.wait(60)
    assert [(each.kind, each.version) for each in await stage.findings() if each.version >= 0] == [(kinds.MISSING, 1)]
    (version, _) = await stage.ledger.history("a")
    assert version.content is not None
    await stage.sink.put("a", 1, version.content, b"")
    await stage.wait(60)
    assert {(each.kind, each.version, each.state) for each in await stage.findings() if each.version >= 0} == {
        (kinds.LATE, 1, kinds.CLOSED), (kinds.REORDERED, 1, kinds.CLOSED)}


async def test_a_trigger_that_stopped_is_told_from_nothing_happening(stage: Stage) -> None:
    await stage.wait(60)
    stage.sink.refusing = {"*"}
    began = stage.clock.now
    while verdicts.TRIGGER_STUCK not in stage.seen:
        await stage.wait(5)
        assert stage.clock.now - began <= RULES.stuck_bound_s + 5
    (finding,) = [each for each in await stage.findings("trigger_stuck") if each.part == "0"]
    stage.sink.refusing = set()
    await stage.wait(60)
    (closed,) = [each for each in await stage.findings("trigger_stuck") if each.part == "0"]
    assert (closed.id, closed.state) == (finding.id, kinds.CLOSED)


async def test_altered_and_extra_versions_are_named_and_never_written_over(stage: Stage) -> None:
    await stage.write("a", "b")
    await stage.wait(60)
    stage.sink.contents["a", 1] = b"altered"
    stage.sink.contents["ghost", 7] = b"nobody wrote this"
    stage.sink.copies["b", 1] = 1
    await stage.watch.look(whole=True)
    assert sorted((each.kind, each.key, each.version) for each in await stage.findings()) == [
        ("corrupt", "a", 1), ("duplicate", "b", 1), ("extra", "ghost", 7)]
    result = await repair(stage.watch)
    assert (result.planned, len(result.left)) == ([], 3)
    assert stage.sink.contents["a", 1] == b"altered"
    del stage.sink.contents["ghost", 7]
    del stage.sink.copies["b", 1]
    await stage.watch.look()
    assert {each.state for each in await stage.findings() if each.kind != "corrupt"} == {kinds.CLOSED}
    assert [each.kind for each in await load_findings(stage.ledger.store)] == ["corrupt"]


async def test_a_poisonous_row_holds_up_only_its_key(stage: Stage) -> None:
    stage.sink.refusing = {"bad"}
    await stage.write("bad", "good", "bad", "good")
    await stage.wait(10)
    assert {name for name in stage.sink.contents if not name[0].startswith("__beat")} == {("good", 1), ("good", 2)}
    stage.sink.refusing = set()
    await stage.wait(20)
    assert [name for name in stage.sink.puts if name[0] == "bad"] == [("bad", 1), ("bad", 2)]


async def test_a_sink_that_is_down_loses_and_quarantines_nothing(stage: Stage) -> None:
    stage.sink.refusing = {"*"}
    await stage.write("a", "b")
    await stage.wait(10)
    assert await stage.ledger.store.fetch("SELECT count(*) FROM yaoki_ledger_quarantine") == [(0,)]
    stage.sink.refusing = set()
    await stage.wait(10)
    assert {("a", 1), ("b", 1)} <= set(stage.sink.contents)


async def test_delivering_again_after_a_crash_changes_nothing(stage: Stage) -> None:
    await stage.write("a", "b", "a")
    await stage.wait(10)
    before = dict(stage.sink.contents)
    async with stage.ledger.store.transaction() as tx:
        await tx.execute("UPDATE yaoki_ledger_cursor SET next_seq = 0")
    done = await stage.keeper.deliverers[0].deliver()
    assert (done.stored, done.present > 0) == (0, True)
    assert stage.sink.contents == before


async def test_a_new_sink_is_filled_from_the_beginning_with_progress(stage: Stage) -> None:
    await stage.write(*(f"k{n}" for n in range(30)))
    await stage.wait(10)
    late = MemorySink("late")
    told: list[tuple[int, int]] = []
    done = await Keeper(stage.ledger, [late], RULES).deliverers[0].deliver(progress=lambda *now: told.append(now))
    assert done.stored == told[-1][0] == told[-1][1]
    assert {(f"k{n}", 1) for n in range(30)} <= set(late.contents)


async def test_a_drill_is_detected_and_repaired_within_the_bound(stage: Stage) -> None:
    await stage.wait(60)
    await stage.keeper.drill()
    told: list[events.Event] = []
    with events.listen(told.append):
        await stage.wait(RULES.loss_bound_s + 30)
    (ended,) = [each for each in told if isinstance(each, events.DrillEnded)]
    assert ended.found
    assert 0 < ended.delay_s <= ended.bound_s == RULES.loss_bound_s
    last = [each for each in told if isinstance(each, events.AuditAdvanced)][-1]
    assert (last.open_findings, last.lost, last.worst, last.longest_delay_s) == (0, 0, verdicts.QUIET, ended.delay_s)
    (finding,) = await stage.findings(kinds.MISSING)
    assert (finding.key, finding.state) == (DRILL_KEY, kinds.CLOSED)
    assert (DRILL_KEY, 1) in stage.sink.contents
    assert await stage.findings("drill_failed") == []


async def test_an_audit_that_does_not_find_its_drill_is_reported(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.wait(60)

    async def blind(*_: object) -> object:
        return []

    monkeypatch.setattr(LedgerSource, "recent", blind)
    await stage.keeper.drill()
    await stage.wait(RULES.loss_bound_s + 30)
    (finding,) = await stage.findings("drill_failed")
    assert "cannot be relied on" in finding.note


async def test_a_silent_auditor_is_noticed_by_the_others(stage: Stage) -> None:
    await stage.wait(30)
    assert await stage.keeper.watch_the_watchers() == []
    stage.clock.now += 300
    assert await stage.keeper.watch_the_watchers() == ["memory"]
    assert [each.state for each in await stage.findings("auditor_silent")] == [kinds.OPEN]


async def test_the_brake_refuses_a_mass_repair(stage: Stage) -> None:
    stage.keeper = Keeper(stage.ledger, [stage.sink], RULES, repairs=False, owner="one")
    stage.watch = stage.keeper.watches[0]
    await stage.write(*(f"k{n}" for n in range(20)))
    await stage.wait(60)
    stage.sink.contents = {name: content for name, content in stage.sink.contents.items() if name[0].startswith("__")}
    await stage.watch.look(whole=True)
    with pytest.raises(RepairRefusedError, match="20 versions would be repaired, the limit is 10") as caught:
        await repair(stage.watch, limit=10)
    assert caught.value.wanted == 20
    assert not any(name[0].startswith("k") for name in stage.sink.contents)
    assert len((await repair(stage.watch, dry_run=True)).planned) == 20
    assert len((await repair(stage.watch)).repaired) == 20


async def test_what_was_erased_is_not_missed_and_a_copy_left_behind_is_named(stage: Stage) -> None:
    await stage.write("person", "person", "other")
    await stage.wait(60)
    await stage.ledger.erase("person")
    del stage.sink.contents["person", 1]
    await stage.watch.look(whole=True)
    assert [(each.kind, each.version) for each in await stage.findings()] == [(kinds.EXTRA, 2)]


async def test_what_no_copy_exists_of_is_said_to_be_lost(stage: Stage) -> None:
    await stage.write("a")
    await stage.wait(60)
    del stage.sink.contents["a", 1]

    async def none(*_: object) -> set[object]:
        return set()

    stage.watch.source.has_copies = none  # type: ignore[method-assign,assignment]
    await stage.watch.look(whole=True)
    (finding,) = await stage.findings()
    assert (finding.state, finding.note.split(":")[0]) == (kinds.LOST, "LOST_UNREPAIRABLE")
    assert (await repair(stage.watch)).lost == [("a", 1)]


async def test_a_flood_of_differences_is_said_once_and_not_listed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "MOST_NAMED", 50)
    await stage.write("a")
    await stage.wait(60)
    stage.sink.contents |= {(f"foreign{n}", 1): b"x" for n in range(300)}
    await stage.watch.look(whole=True)
    found = await stage.findings()
    assert len(found) == 51
    (flood,) = [each for each in found if each.kind == "flood"]
    assert "1 versions are expected and 301 are there" in flood.note


async def test_one_auditor_of_a_sink_at_a_time(stage: Stage) -> None:
    await stage.watch.look()
    other = Watch(stage.ledger.store, LedgerSource(stage.ledger), stage.sink, RULES, owner="other")
    with pytest.raises(AuditError, match="another auditor"):
        await other.look()
    await stage.watch.close()
    assert await other.look()
    stage.clock.now += 600  # it died without giving its lease up
    assert await stage.watch.look()


async def test_events_tell_of_all_of_it(stage: Stage) -> None:
    told: list[object] = []
    with events.listen(told.append):
        await stage.write("a")
        await stage.wait(60)
        del stage.sink.contents["a", 1]
        await stage.watch.look(whole=True)
        await repair(stage.watch)
    names = {type(event).__name__ for event in told}
    assert {"EpochSealed", "VerdictReached", "FindingOpened", "FindingClosed", "AuditAdvanced"} <= names


async def test_a_mass_loss_is_left_to_a_person_and_the_keeper_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yaoki.ledger.rounds.BRAKE", 10)
    await stage.write(*(f"k{n}" for n in range(20)))
    stage.sink.losing = True
    await stage.wait(60)
    stage.sink.losing = False
    await stage.write("after")
    await stage.wait(60)
    assert len([each for each in await stage.findings(kinds.MISSING) if each.state == kinds.OPEN]) == 20
    assert ("after", 1) in stage.sink.contents
    assert ("k0", 1) not in stage.sink.contents


async def test_a_keeper_outlasts_every_outage_and_tells_of_each(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "AGAIN_S", 0.001)
    monkeypatch.setattr(rounds, "AGAIN_CAP_S", 0.02)
    turn, turns = stage.keeper.turn, 0
    told: list[events.Event] = []

    async def failing() -> None:
        nonlocal turns
        turns += 1
        if turns <= 9:
            raise FencedError("another took over") if turns == 3 else OSError("the database is away")
        await turn()
        raise asyncio.CancelledError  # enough

    monkeypatch.setattr(stage.keeper, "turn", failing)
    await stage.write("a")
    with events.listen(told.append), pytest.raises(asyncio.CancelledError):
        await stage.keeper.run()
    assert ("a", 1) in stage.sink.contents
    stalls = [each for each in told if isinstance(each, events.KeeperStalled)]
    assert [(each.failures, each.retry_in_s * 1000) for each in stalls] == [(1, 1), (2, 2), (1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 20)]
    assert stalls[0].error == "OSError: the database is away"


async def test_a_mistake_ends_a_keeper_and_leases_that_cannot_be_given_back_hide_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def mistaken() -> None:
        raise UsageError("no such sink")

    async def unreachable() -> None:
        raise OSError("the database is away")

    monkeypatch.setattr(stage.keeper, "turn", mistaken)
    monkeypatch.setattr(stage.keeper, "close", unreachable)
    with pytest.raises(UsageError, match="no such sink"):
        await stage.keeper.run()
