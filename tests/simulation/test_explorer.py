"""The explorer itself: the same every time, its reductions lose nothing, and our own safeguards are needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation import sagas, zoo_table
from yaoki.errors import YaokiError
from yaoki.explore import Explorer, FakeService, FakeStore, Scenario, World, audit_reduction, explore
from yaoki.explore.exploring import replay
from yaoki.explore.journal import Platter, SimJournal
from yaoki.explore.sagas import open_app
from yaoki.saga.define import Saga

TESTS = Path(__file__).parent.parent
ONE = """
import sys
sys.path.insert(0, sys.argv[1])
import json
from simulation import sagas, zoo_table
from yaoki.explore import explore
reports = [explore(make(), faults=1, swarm=5, seed=3).to_dict() for make in (sagas.diamond, sagas.several)]
reports.append(zoo_table.broken("last_writer_wins", 1).to_dict())
for report in reports:
    del report["seconds"]
print(json.dumps(reports))
"""


def in_another_process(hash_seed: str) -> str:
    done = subprocess.run([sys.executable, "-c", ONE, str(TESTS)], env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True,
                          text=True, check=True, timeout=100)
    return done.stdout


def test_the_same_seed_gives_the_same_report_byte_for_byte_in_every_process_and_with_every_hash_seed():
    first = in_another_process("0")
    assert len(json.loads(first)) == 3
    assert in_another_process("1") == first
    assert in_another_process("77") == first


def test_three_runs_in_one_process_are_the_same():
    digests = {tuple(run.digest() for run in executions(sagas.sides())) for _ in range(3)}
    assert len(digests) == 1


def executions(scenario: Scenario):
    from yaoki.explore.plan import Planned

    scenario.baseline = scenario.execute()
    yield scenario.baseline
    for point in list(scenario.baseline.points):
        for fault in ("crash.after_effect", "call.timeout:late") if point.service != "journal" else ("crash.after_checkpoint",):
            yield scenario.execute((Planned(point.site, point.nth, fault),))


def test_jobs_find_what_one_process_finds():
    one = explore(zoo_table.module("unknown_is_failure").program(fixed=False), faults=2)
    two = explore(zoo_table.module("unknown_is_failure").program(fixed=False), faults=2, jobs=2)
    assert set(two.signatures) == set(one.signatures)
    assert two.stories[0].token == one.stories[0].token


@pytest.mark.parametrize("make", [pytest.param(sagas.pivoted, marks=pytest.mark.long), pytest.param(sagas.sides, marks=pytest.mark.long), lambda: zoo_table.module("unknown_is_failure").program(fixed=False),
                                  lambda: zoo_table.module("late_do_after_undo").program(fixed=False),
                                  lambda: zoo_table.module("undo_without_retry").program(fixed=False)])
def test_reductions_save_executions_and_lose_no_signature(make):
    lost, reduced, full = audit_reduction(make(), faults=2)
    assert not lost
    assert reduced.executions < full.executions
    assert reduced.pruned


@pytest.mark.parametrize("name", ["chain that is declined", "diamond", "sides, one declined", "pivoted", "hurried", "blocking", "several", "cancelled"])
def test_the_engine_brings_every_saga_to_its_end_under_every_fault(name):
    report = explore(sagas.ALL[name](), faults=1)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted


@pytest.mark.long
@pytest.mark.parametrize("name", sagas.ALL)
def test_the_engine_brings_every_saga_to_its_end_under_every_pair_and_a_swarm(name):
    report = explore(sagas.ALL[name](), faults=2, swarm=500)
    assert report.ok, report.text(matrix=False)


# ── our own safeguards, switched off ──


def test_without_waiting_for_durability_an_acknowledged_run_is_lost():
    """Group-commit visibility off: `start` returns, the program notes that it need not start the run again, and the power fails."""

    def program(*, durable: bool) -> Scenario:
        shop, asked = FakeService("shop"), FakeStore("asked")
        order = Saga("order", input=str)

        @order.step(undo=None)
        async def ship(who: str) -> str:
            return (await shop.book()).id

        async def main(world: World) -> str:
            async with open_app(world, order) as app:
                if not durable:
                    _write_late(world, app.journal)
                if asked.rows.get("run-1") is None:
                    await app.start(order, "ann", id="run-1")
                    await asked.put("run-1", "started")
                run = app.run(order, "run-1")
                return (await run.wait()).value

        def nothing_is_lost(world: World) -> str:
            return "" if shop.state.net.get("run-1/ship") else "the run was acknowledged, and its effect is not there"

        return Scenario(main, invariants=[nothing_is_lost], faults=["crash"])

    report = explore(program(durable=False), faults=1)
    assert report.found, "the safeguard is not needed?"
    assert explore(program(durable=True), faults=1).ok


def _write_late(world: World, journal: SimJournal) -> None:
    """What was acknowledged is in memory for ten milliseconds, and only then on the platter."""
    real = journal._write_one
    platter: Platter = journal._platter
    for name in ("_headers", "_records", "_numbers"):
        setattr(journal, name, {key: (list(value) if name == "_records" else value) for key, value in getattr(platter.kept, name).items()})

    def write(operation):
        answer = real(operation)

        def reach_the_platter() -> None:
            platter.kept._headers.update(journal._headers)
            platter.kept._records.update({key: list(value) for key, value in journal._records.items()})
            platter.kept._numbers.update(journal._numbers)

        world.loop.call_later(0.01, reach_the_platter)
        return answer

    journal._write_one = write


def test_a_budget_is_kept_also_by_a_job_that_reports_little_and_by_slow_executions():
    report = Explorer(sagas.diamond(), depth=2, share=(1, 1000), budget_s=0.0).run()
    assert report.stopped == "after 0 s"


def test_sometimes_assertions_say_what_was_never_reached():
    shop = FakeService("shop")

    async def main(world: World) -> None:
        try:
            await shop.book("a", key="a")
        except YaokiError as error:
            world.sometimes("a refusal is seen", type(error).__name__ == "RefusedError")
            world.sometimes("the moon falls down", False)

    report = explore(Scenario(main), faults=1)
    assert "a refusal is seen" not in report.never
    assert report.never == ["the moon falls down"]
    assert not report.ok


def test_a_program_that_is_not_deterministic_is_said_to_be_so():
    lives: list[int] = []
    shop = FakeService("shop")

    async def main() -> None:
        lives.append(1)
        for number in range(len(lives)):
            await shop.book(f"order-{number}", key=f"order-{number}")

    report = explore(Scenario(main), faults=1)
    assert not report.deterministic
    assert "the same execution twice differs" in report.text()


def test_a_replay_of_a_clean_execution_tells_its_story():
    run, story = replay(sagas.diamond(), "yk1:payment>payment.book@0=call.lost_ack")
    assert run.outcome == "completed"
    assert not run.violations
    assert any("⚡ call.lost_ack" in line.words for line in story.lines)
