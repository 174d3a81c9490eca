"""The moving line: rate, counts by state, time left, in whatever room there is."""

from __future__ import annotations

import click
from hypothesis import given
from hypothesis import strategies as st

from yaoki.cli.run.progress import WINDOW_S, Progress, bar
from yaoki.saga.records import RunState


def ended(progress: Progress, **counts: int) -> Progress:
    for name, count in counts.items():
        for _ in range(count):
            progress.end(RunState[name.upper()])
    return progress


def test_the_line_says_how_many_how_fast_in_which_states_and_how_long_still():
    progress = ended(Progress(1000, 0.0), undone=20, completed=480)
    progress.started = 564
    assert click.unstyle(progress.line(5.0)) == \
        "━━━━━━━━━━━━━─────────────  500/1 000  100/s  completed 480 · undone 20 · in flight 64  5 s left"


def test_the_rate_is_that_of_the_last_seconds():
    progress = Progress(None, 0.0)
    for second in range(1, 21):
        ended(progress, completed=10 if second <= 10 else 100)
        rate = progress.rate(float(second))
    assert rate == 100.0
    assert WINDOW_S < 10


def test_without_a_total_there_is_no_bar_and_no_time_left():
    assert click.unstyle(ended(Progress(None, 0.0), completed=5).line(1.0)) == "5  5/s  completed 5 · in flight -5"


@given(st.integers(20, 200), st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.1, 10**5))
def test_the_line_fits_where_it_can(width: int, completed: int, more: int, now: float):
    progress = Progress(completed + more, 0.0)
    progress.ended = {RunState.COMPLETED: completed, RunState.BLOCKED: 3}
    progress.started = completed + 3
    text = click.unstyle(progress.line(now, width))
    assert len(text) <= max(width, 75)


@given(st.floats(0, 1), st.integers(1, 40))
def test_the_bar_is_always_as_long_and_never_fuller_than_the_share(share: float, size: int):
    text = click.unstyle(bar(share, size))
    assert len(text) == size
    assert text.count("━") + text.count("╸") / 2 <= share * size + 1e-9
