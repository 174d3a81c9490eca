"""Small programs, each with one realistic bug: the explorer finds every bug, by name, and nothing in the corrected twin."""

from __future__ import annotations

import pytest

from simulation import zoo_table
from yaoki.explore import replay

# A twin at depth 2 takes a second or two; every commit looks at its first so many executions, `--long` at all of them.
TWIN_EXECUTIONS = 250


def test_the_zoo_has_at_least_thirty_programs():
    assert len(zoo_table.NAMES) >= 30


@pytest.mark.parametrize("name", zoo_table.NAMES)
def test_the_bug_is_found_and_named(name):
    program = zoo_table.module(name)
    for depth in (0, 1, 2):
        report = zoo_table.broken(name, depth)
        found = {invariant for signature in report.signatures for invariant in signature}
        if program.BREAKS in found:
            break
    assert program.BREAKS in found, report.text()
    story = next(story for story in report.stories if program.BREAKS in story.signature)
    assert len(story.plan) == depth, "the story is not the smallest"
    again, _ = replay(program.program(fixed=False), story.token)
    assert again.violations, "the replay does not show it"


@pytest.mark.parametrize("name", zoo_table.NAMES)
def test_the_corrected_twin_is_clean(name):
    program = zoo_table.module(name).program(fixed=True)
    report = zoo_table.explore(program, faults=2, most=TWIN_EXECUTIONS)
    assert not report.found, report.text(matrix=False)
    assert not report.unfired
    assert report.deterministic


@pytest.mark.long
@pytest.mark.parametrize("name", zoo_table.NAMES)
def test_the_corrected_twin_is_clean_under_every_pair_unreduced(name):
    report = zoo_table.explore(zoo_table.module(name).program(fixed=True), faults=2, reduce=False)
    assert report.ok, report.text(matrix=False)
    assert report.exhausted
