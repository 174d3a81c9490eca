"""Whatever is done to a sink is named, within the bound, and nothing else is."""

from __future__ import annotations

import pytest

from simulation.ledger_world import RULES, Plan, World
from yaoki.ledger import findings as kinds
from yaoki.ledger import verdicts

HARM = Plan(faults=0.25, crashes=0.05)


def explain(world: World) -> str:
    return f"replay: World(seed={world.seed}, plan={world.plan}, through_sketches={world.through_sketches}).run()"


def healthy(seeds: range) -> None:
    for seed in seeds:
        world = World(seed, Plan(crashes=0.05 if seed % 2 else 0.0), through_sketches=seed % 50 == 0).run()
        assert world.named() == world.truth(), explain(world)
        if seed % 2 == 0:
            assert not world.stored, explain(world)
        assert set(world.verdicts) <= {verdicts.QUIET, verdicts.FLOWING, verdicts.UNKNOWN}, explain(world)


def test_a_healthy_history_raises_nothing() -> None:
    healthy(range(500))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand_healthy_histories_raise_nothing() -> None:
    healthy(range(10_000))


def harmed(seeds: range) -> None:
    seen: set[str] = set()
    for seed in seeds:
        world = World(seed, HARM, through_sketches=seed % 10 == 0).run()
        assert world.named() == world.truth(), explain(world)
        for each in world.stored.values():
            allowed = each.bound_s + world.looks_missed * RULES.audit_every_s + RULES.seal_every_s * 3
            assert each.delay_s <= allowed, explain(world)
        seen |= {kind for kind, _, _ in world.truth()}
    # Sometimes each of them happened: the test that names nothing would pass over histories where nothing happens.
    assert seen == {kinds.MISSING, kinds.DUPLICATE, kinds.CORRUPT, kinds.LATE, kinds.REORDERED}


def test_all_that_is_done_to_a_sink_is_named_and_nothing_else() -> None:
    harmed(range(250))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_all_that_is_done_to_a_sink_is_named_in_five_thousand_histories() -> None:
    harmed(range(5000))


def test_a_stopped_trigger_is_told_from_a_quiet_day() -> None:
    for seed in range(60):
        world = World(seed, Plan(stops=True)).run()
        assert verdicts.TRIGGER_STUCK in world.verdicts, explain(world)
        assert verdicts.SKIPPED_INTERVAL in world.verdicts, explain(world)
        assert world.named() == world.truth(), explain(world)


def test_count_only_auditing_misses_one_lost_and_one_doubled() -> None:
    blind = 0
    for seed in range(100):
        world = World(seed, Plan(faults=0.1, kinds=("lose", "duplicate"))).run()
        counts_cancel = len(world.lost) == len(world.doubled) > 0
        if counts_cancel:
            assert world.named() == world.truth(), explain(world)
            blind += not world.count_only
    assert blind >= 5, "no history had as many lost as doubled: the comparison proves nothing"
