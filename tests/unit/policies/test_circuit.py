"""The breaker's decider alone: what must hold after any sequence of calls."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yaoki.policies.circuit import FORCED, Circuit, Probe, Refusal
from yaoki.policies.window import FAILED, OK, SLOW, CountWindow, TimeWindow


def circuit(**changes: Any) -> Circuit:
    settings = {"minimum": 4, "failure_rate": 0.5, "slow_s": 2.0, "slow_rate": 0.8, "open_for_s": 10.0, "open_cap_s": 40.0,
                "probes": 2, "probe_lease_s": 5.0, **changes}
    return Circuit(settings.pop("window", None) or TimeWindow(30.0), **settings)


# ── windows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.floats(0, 12), st.sampled_from([OK, SLOW, FAILED])), max_size=200))
def test_a_time_window_holds_what_ended_in_its_time_give_or_take_a_slice(calls: list[tuple[float, int]]) -> None:
    window, now, seen = TimeWindow(30.0), 1000.0, []
    window.clear(now)
    for pause, outcome in calls:
        now += pause
        window.add(outcome, now)
        seen.append((now, outcome))
        for outcome_kind, count in ((FAILED, window.failed), (SLOW, window.slow), (None, window.total)):
            surely = sum(1 for at, what in seen if at > now - 27 and outcome_kind in (what, None))
            perhaps = sum(1 for at, what in seen if at > now - 33 and outcome_kind in (what, None))
            assert surely <= count <= perhaps


@given(st.lists(st.sampled_from([OK, SLOW, FAILED]), max_size=60), st.integers(1, 12))
def test_a_count_window_holds_the_last_calls_exactly(outcomes: list[int], length: int) -> None:
    window, last = CountWindow(length), deque[int](maxlen=length)
    for outcome in outcomes:
        window.add(outcome, 0.0)
        last.append(outcome)
        assert (window.total, window.failed, window.slow) == (len(last), last.count(FAILED), last.count(SLOW))


# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────────

steps = st.lists(st.tuples(st.sampled_from(["call", "call", "call", "succeed", "fail", "slow", "drop", "wait", "long wait", "trip", "reset", "disable"]),
                           st.integers(0, 30)), max_size=120)


@given(steps, st.integers(0, 99), st.integers(1, 3))
@settings(max_examples=200)
def test_after_any_history_the_invariants_hold(plan: list[tuple[str, int]], seed: int, probes: int) -> None:
    """Safety: open refuses; half-open never has more than its probes under way; an old epoch's results change nothing."""
    made, rng, now = circuit(probes=probes), Random(seed), 1000.0
    held: list[Any] = []
    for what, which in plan:
        before = (made.state, made.epoch)
        if what == "call":
            try:
                held.append(made.admit(now))
            except Refusal as refusal:
                assert before[0] in ("open", "half_open", "forced_open")
                assert refusal.retry_after_s >= 0  # noqa: PT017
            else:
                assert before[0] != "forced_open"
                assert not (before[0] == "open" and now < made.open_until)
        elif what in ("succeed", "fail", "slow", "drop") and held:
            permit = held.pop(which % len(held))
            stale = (permit.epoch if isinstance(permit, Probe) else permit) != made.epoch
            if what == "drop":
                made.dropped(permit)
            elif what == "fail":
                made.failed(permit, now, rng)
            else:
                made.succeeded(permit, now, 0.1 if what == "succeed" else 3.0, rng)
            if stale:
                assert (made.state, made.epoch) == before
        elif what.endswith("wait"):
            now += 6.0 if what == "wait" else 60.0
        elif what in ("trip", "reset", "disable"):
            made.force({"trip": "forced_open", "reset": "closed", "disable": "disabled"}[what], "test", now)
        live = [probe for probe in made._leases if probe.expires > now]
        assert len(live) + made._answered <= probes
        assert made.gate == (made.state in ("open", "half_open", "forced_open"))
        assert made.state == before[0] or made.epoch > before[1]
    if made.state not in FORCED:
        # Liveness: once everything succeeds it closes, whatever probes were lost on the way.
        for _ in range(10):
            now += 60.0
            try:
                made.succeeded(made.admit(now), now, 0.1, rng)
            except Refusal:
                continue
        assert made.state == "closed"


def fail(made: Circuit, times: int, now: float, rng: Random | None = None) -> None:
    for _ in range(times):
        made.failed(made.admit(now), now, rng or Random(0))


def test_a_probe_of_an_earlier_half_open_time_changes_nothing_when_it_answers_at_last() -> None:
    made, rng = circuit(probes=2), Random(0)
    fail(made, 4, 0.0)
    late, failing = made.admit(10.0), made.admit(10.0)
    assert made.failed(failing, 10.0, rng).after == "open"  # type: ignore[union-attr]
    for answer in (lambda: made.failed(late, 11.0, rng), lambda: made.succeeded(late, 11.0, 0.1, rng)):
        assert answer() is None
        assert made.state == "open"
    now = made.open_until
    made.admit(now)
    assert made.failed(late, now, rng) is None
    assert made.state == "half_open"


def test_a_probe_whose_lease_ran_out_changes_nothing_when_it_answers_at_last() -> None:
    made, rng = circuit(probes=1), Random(0)
    fail(made, 4, 0.0)
    late = made.admit(10.0)
    another = made.admit(15.0)
    assert made.failed(late, 15.0, rng) is None
    assert made.succeeded(another, 15.0, 0.1, rng).after == "closed"  # type: ignore[union-attr]


def test_the_open_time_doubles_up_to_its_cap_and_is_drawn_from_its_upper_half() -> None:
    longest = []
    for round_ in range(1, 6):
        lengths = []
        for seed in range(200):
            made, rng, now = circuit(probes=1), Random(seed), 0.0
            fail(made, 4, now, rng)
            for _ in range(round_ - 1):
                now = made.open_until
                fail(made, 1, now, rng)
            lengths.append(made.open_until - now)
        full = min(40.0, 10.0 * 2 ** (round_ - 1))
        assert full / 2 <= min(lengths) < full * 0.55
        assert full * 0.95 < max(lengths) <= full
        longest.append(max(lengths))
    assert longest == sorted(longest) or longest[-1] == pytest.approx(longest[-2], rel=0.1)


def test_slow_calls_open_it_and_one_slow_probe_keeps_it_open() -> None:
    made, rng = circuit(probes=1), Random(0)
    for _ in range(4):
        change = made.succeeded(made.admit(0.0), 0.0, 3.0, rng)
    assert change is not None
    assert "longer than 2 s" in change.reason
    now = made.open_until
    assert made.succeeded(made.admit(now), now, 3.0, rng).after == "open"  # type: ignore[union-attr]


def test_below_the_minimum_no_rate_means_anything() -> None:
    made = circuit(minimum=20)
    fail(made, 19, 0.0)
    assert made.state == "closed"
    fail(made, 1, 0.0)
    assert made.state == "open"


def test_metrics_only_tells_once_and_refuses_nothing() -> None:
    made, rng = circuit(), Random(0)
    made.force("metrics_only", "trying it out", 0.0)
    told = [made.failed(made.admit(1.0), 1.0, rng) for _ in range(50)]
    assert [change.reason for change in told if change] == ["would open: 4 of the last 4 calls failed"]
    assert made.state == "metrics_only"


def test_somebody_elses_verdict_opens_it_for_a_while_but_never_what_was_set_by_hand() -> None:
    made = circuit(probes=1)
    assert made.open_now("health check", 5.0, 0.0).after == "open"  # type: ignore[union-attr]
    with pytest.raises(Refusal):
        made.admit(4.9)
    assert isinstance(made.admit(5.0), Probe)
    made.force("disabled", "by hand", 6.0)
    assert made.open_now("health check", 5.0, 6.0) is None
    assert made.state == "disabled"
