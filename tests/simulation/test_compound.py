"""Steps that are more than one call, under every fault at every point: killed at every record, and every pair of the sharpest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulation import compound
from yaoki.explore import Scenario, explore
from yaoki.saga.parts.state import LEFT, Part, Parts

# What hurts most, for the pairs of every commit; `--long` runs all of them.
SHARP = ["call.lost_ack", "crash.after_effect", "crash.before_effect", "crash.after_checkpoint"]

ALL: dict[str, Callable[[], Scenario]] = {
    "child": compound.child,
    "child, declined after it": lambda: compound.child(declines=True),
    "child with a pivot, declined after it": lambda: compound.child(declines=True, pivot=True),
    "child left, declined after it": lambda: compound.child(declines=True, detached=True),
    "child as pivot": compound.child_as_pivot,
    "child as pivot, declined": lambda: compound.child_as_pivot(declines=True),
    "child as pivot, cancelled": lambda: compound.child_as_pivot(cancels=True),
    "first of as pivot": compound.first_of_as_pivot,
    "first of as pivot, one declined": lambda: compound.first_of_as_pivot(declines=True),
    "first of as pivot, cancelled": lambda: compound.first_of_as_pivot(cancels=True),
    "race as pivot": lambda: compound.first_of_as_pivot(race=True),
    "each": compound.each,
    "each, one declined": lambda: compound.each(declines=True),
    "each, declined after it": lambda: compound.each(fails=True),
    "first of": compound.first_of,
    "first of, one declined": lambda: compound.first_of(declines=True),
    "first of, declined after it": lambda: compound.first_of(fails=True),
    "race": lambda: compound.first_of(race=True),
    "race, declined after it": lambda: compound.first_of(race=True, fails=True),
    "flow": compound.flow,
    "flow, declined": lambda: compound.flow(declines=True),
    "flow, declined after it": lambda: compound.flow(fails=True),
}
SLOW = {"child as pivot, cancelled"}
PAIRS = ["child, declined after it", "each, one declined", "first of", "race, declined after it", "flow, declined after it"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in ALL])
def test_every_run_ends_and_leaves_all_or_nothing_under_every_fault(name: str):
    report = explore(ALL[name](), faults=1)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
    assert report.executions > 50


@pytest.mark.parametrize("name", PAIRS)
def test_the_sharpest_pairs(name: str):
    report = explore(ALL[name](), faults=2, kinds=SHARP, most=120)
    assert report.ok, report.text(matrix=False)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ALL)
def test_every_pair(name: str):
    report = explore(ALL[name](), faults=2)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted


@pytest.mark.parametrize("name", ["each, declined after it", "race", "flow, declined after it"])
def test_what_was_under_way_when_a_process_died_must_be_undone(monkeypatch: pytest.MonkeyPatch, name: str):
    """The safeguard switched off: a part that was begun and has no end is taken for one that never was."""
    forgetful = LEFT - {Part.BEGUN, Part.DOUBTFUL}
    monkeypatch.setattr(Parts, "to_undo", lambda self: [name for name, state in reversed(self.states.items()) if state in forgetful])
    assert explore(ALL[name](), faults=1, most_broken=1).found
