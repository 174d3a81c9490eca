"""What is done about instants that have come: one firing each, overlaps, missed ones, pauses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yaoki.errors import ConfigError
from yaoki.saga.schedule.plan import OVERLAPS, Firing, Plan, Spec, between, decide, ended, started, triggered, wakes_at


def spec(**how: Any) -> Spec:
    return Spec("tick", "report", every_s=60.0, **how)


def ids(plan: Plan) -> list[str]:
    return [each.id[-9:-1] for each in plan.pending]


def at(spec: Spec, plan: Plan, now: float) -> Plan:
    return decide(spec, spec.when(), plan, now)


def run_all(plan: Plan) -> Plan:
    return started(plan, tuple(each.id for each in plan.pending))


def test_each_instant_is_decided_once():
    tick = spec(overlap="allow")
    plan = at(tick, Plan(since=0.0), 125.0)
    assert ids(plan) == ["00:01:00", "00:02:00"]
    assert at(tick, plan, 125.0) == plan
    plan = run_all(plan)
    assert (plan.pending, plan.fired) == ((), 2)
    assert ids(at(tick, plan, 181.0)) == ["00:03:00"]
    assert wakes_at(tick, tick.when(), plan) == 180.0


@pytest.mark.parametrize(("overlap", "pending", "held", "left_out", "cancelling"), [
    ("allow", ["00:02:00", "00:03:00", "00:04:00"], None, 0, False),
    ("skip", [], None, 3, False),
    ("buffer", [], "00:02:00", 2, False),
    ("cancel", [], "00:04:00", 2, True),
])
def test_what_happens_while_the_last_one_runs(overlap: str, pending: list[str], held: str | None, left_out: int, cancelling: bool):
    tick = spec(overlap=overlap)
    plan = run_all(at(tick, Plan(since=0.0), 60.0))
    plan = at(tick, plan, 245.0)
    assert (ids(plan), plan.held and plan.held.id[-9:-1], plan.left_out, plan.cancelling) == (pending, held, left_out, cancelling)
    plan = ended(run_all(plan), frozenset())
    assert (ids(plan), plan.held, plan.cancelling) == ([held] if held else [], None, False), "the one that was kept comes now"


def test_what_is_older_than_the_time_to_catch_up_is_left_out():
    tick = spec(overlap="allow", catch_up_s=120.0)
    plan = at(tick, Plan(since=0.0), 600.0)
    assert ids(plan) == ["00:08:00", "00:09:00", "00:10:00"]
    assert plan.left_out == 7
    assert at(spec(catch_up_s=0.0), Plan(since=0.0), 59.9).pending == ()


def test_years_without_anybody_are_not_counted_to_the_end():
    plan = at(spec(overlap="skip", catch_up_s=60.0), Plan(since=0.0), 1e9)
    assert plan.since > 1e9 - 200
    plan = at(spec(overlap="skip", catch_up_s=60.0), plan, 1e9)
    assert len(plan.pending) == 1


def test_a_paused_schedule_leaves_its_instants_behind():
    plan = at(spec(), Plan(since=0.0, paused="holidays"), 3600.0)
    assert (plan.pending, plan.since) == ((), 3600.0)
    assert ids(at(spec(), msgspec.structs.replace(plan, paused=""), 3665.0)) == ["01:01:00"]


def test_jitter_puts_each_off_by_its_own_share_the_same_for_all():
    tick = spec(jitter_s=30.0, overlap="allow")
    delays = {tick.due(n * 60.0) - n * 60.0 for n in range(50)}
    assert len(delays) == 50
    assert all(0 <= each < 30 for each in delays)
    assert at(tick, Plan(since=0.0), tick.due(60.0) - 0.01).pending == ()
    assert ids(at(tick, Plan(since=0.0), tick.due(60.0))) == ["00:01:00"], "its name is the instant's, not the start's"


def test_what_a_person_triggers_starts_whatever_runs_and_only_once():
    plan = run_all(at(spec(), Plan(since=0.0), 60.0))
    extra = Firing("tick@by-hand", 70.0)
    plan = triggered(triggered(plan, extra), extra)
    assert plan.pending == (extra,)


def test_instants_can_be_filled_in_and_have_the_ids_that_they_would_have_had():
    tick = spec()
    assert [each.id for each in between(tick, tick.when(), 0.0, 180.0)] == [f"tick@1970-01-01T00:0{n}:00Z" for n in (1, 2, 3)]
    with pytest.raises(ConfigError, match="more than"):
        between(tick, tick.when(), 0.0, 1e9)


@pytest.mark.parametrize("how", [{}, {"cron": "* * * * *", "every_s": 5.0}, {"every_s": 5.0, "overlap": "never"},
                                 {"every_s": 5.0, "catch_up_s": -1.0}, {"every_s": 0.2}, {"cron": "0 0 31 2 *"}])
def test_what_cannot_be_is_refused(how: dict[str, Any]):
    with pytest.raises(ConfigError):
        Spec("tick", "report", **how).check()
    with pytest.raises(ConfigError, match="name"):
        Spec("tick@", "report", every_s=5.0).check()


@given(st.sampled_from(OVERLAPS), st.lists(st.tuples(st.floats(0.1, 400), st.booleans(), st.booleans()), max_size=30),
       st.sampled_from((0.0, 20.0)), st.sampled_from((0.0, 100.0, 1e9)))
@settings(max_examples=80, deadline=None)
def test_whatever_comes_no_instant_fires_twice_and_each_is_fired_held_or_left_out(overlap: str, looks: list[Any], jitter: float, catch_up: float):
    tick = spec(overlap=overlap, jitter_s=jitter, catch_up_s=catch_up)
    plan, now, fired = Plan(since=0.0), 0.0, []
    for wait, runs_yet, carries_out in looks:
        now += wait
        plan = at(tick, ended(plan, frozenset(plan.runs) if runs_yet else frozenset()), now)
        if carries_out:
            fired += [each.id for each in plan.pending]
            plan = run_all(plan)
        if overlap in {"skip", "buffer", "cancel"}:
            assert len(plan.pending) + len(plan.runs) <= 1, "never two at once"
        instants = int(plan.since // 60)
        assert len(fired) + len(plan.pending) + (plan.held is not None) + plan.left_out == instants
    assert len(set(fired)) == len(fired)
