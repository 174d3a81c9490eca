"""Shedder: who runs, who waits, who is refused, and why newest-first keeps an overloaded server useful."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaoki.errors import ConfigError
from yaoki.policies.shedding import Shedder
from yaoki.runtime import Random


def numbers(waiters):
    return [each.ticket for each in waiters]


def test_up_to_the_limit_requests_run_at_once_and_the_next_waits():
    shedder: Shedder[int] = Shedder()
    for number in range(3):
        waiter, verdicts = shedder.arrive(number, 0.0, limit=3)
        assert verdicts.run == [waiter]
    waiter, verdicts = shedder.arrive(3, 0.0, limit=3)
    assert not verdicts.run
    assert not verdicts.refuse
    assert numbers(shedder.ended(0.01, limit=3).run) == [3]


def test_without_overload_the_oldest_goes_first_and_under_overload_the_newest():
    shedder: Shedder[int] = Shedder(max_wait_s=5.0, target_s=0.5, interval_s=0.1)
    shedder.arrive(0, 0.0, limit=1)
    for number in (1, 2, 3):
        shedder.arrive(number, 0.01, limit=1)
    assert numbers(shedder.ended(0.05, limit=1).run) == [1]
    assert numbers(shedder.ended(0.30, limit=1).run) == [3]  # the queue has not been empty for longer than the interval


def test_more_important_requests_go_first_and_less_important_ones_give_up_their_place():
    shedder: Shedder[str] = Shedder(queue=2)
    shedder.arrive("running", 0.0, limit=1)
    shedder.arrive("batch", 0.0, limit=1, priority=3)
    shedder.arrive("page", 0.0, limit=1, priority=1)
    _, verdicts = shedder.arrive("payment", 0.0, limit=1, priority=0)
    assert [(each.ticket, why) for each, why in verdicts.refuse] == [("batch", "full")]
    _, verdicts = shedder.arrive("batch 2", 0.0, limit=1, priority=3)
    assert [(each.ticket, why) for each, why in verdicts.refuse] == [("batch 2", "full")]
    assert numbers(shedder.ended(0.01, limit=1).run) == ["payment"]


def test_what_cannot_be_done_in_time_is_refused_at_once():
    shedder: Shedder[int] = Shedder()
    for number in range(200):
        shedder.arrive(number, number, limit=1)
        shedder.ended(number + 0.1, limit=1, service_s=0.1)
    _, verdicts = shedder.arrive(200, 300.0, limit=1, deadline=300.05)
    assert verdicts.refuse[0][1] == "deadline"
    _, verdicts = shedder.arrive(201, 300.0, limit=1, deadline=300.2)
    assert verdicts.run


def test_waiting_ends_with_the_patience_or_at_its_turn_when_the_deadline_has_passed():
    shedder: Shedder[str] = Shedder(max_wait_s=1.0, target_s=1.0, interval_s=10.0)
    for name, at, deadline in (("running", 0.0, 99.0), ("hurried", 0.0, 0.4), ("patient", 0.1, 99.0), ("late", 0.2, 0.5)):
        shedder.arrive(name, at, limit=1, deadline=deadline)
    assert shedder.next_tick() == 0.4
    assert [(each.ticket, why) for each, why in shedder.tick(0.45, limit=1).refuse] == [("hurried", "deadline")]
    assert shedder.next_tick() == 1.1
    assert [(each.ticket, why) for each, why in shedder.tick(1.1, limit=1).refuse] == [("patient", "waited"), ("late", "deadline")]
    assert shedder.next_tick() is None


@given(st.lists(st.tuples(st.sampled_from(["arrive", "arrive", "ended", "leave", "tick"]), st.floats(0, 0.3), st.integers(0, 5),
                          st.floats(0.0, 2.0)), max_size=120), st.integers(1, 4), st.integers(0, 6))
def test_every_request_gets_exactly_one_verdict_and_the_limit_is_kept(plan, limit, queue):
    shedder: Shedder[int] = Shedder(queue=queue)
    now, count, verdict = 0.0, 0, {}
    held = {}

    def take(verdicts):
        for each in verdicts.run:
            assert each.ticket not in verdict
            assert each.deadline >= now
            verdict[each.ticket] = "run"
        for each, why in verdicts.refuse:
            assert each.ticket not in verdict
            verdict[each.ticket] = why

    for what, pause, priority, patience in plan:
        now += pause
        if what == "arrive":
            waiter, verdicts = shedder.arrive(count, now, limit=limit, deadline=now + patience, priority=priority)
            held[count] = waiter
            count += 1
            take(verdicts)
        elif what == "ended" and shedder.running:
            ran = next(number for number, why in verdict.items() if why == "run")
            verdict[ran] = "ended"
            take(shedder.ended(now, limit=limit))
        elif what == "leave" and held:
            number = sorted(held)[priority % len(held)]
            waiting = number not in verdict
            assert shedder.leave(held[number]) is waiting
            if waiting:
                verdict[number] = "left"
        else:
            take(shedder.tick(now, limit=limit))
        assert shedder.running == list(verdict.values()).count("run") <= limit
        assert shedder.waiting == count - len(verdict) <= queue


def serve(shedder, *, offered_per_s, bears_per_s, seconds, patience_s, rng):
    """One server with a fixed service time; callers give up after their patience, and do not tell. Returns what became of them."""
    outcome, now, ends = Counter(), 0.0, []

    def take(verdicts):
        for each in verdicts.run:
            heappush(ends, (now + 1 / bears_per_s, each.ticket, each))
        for _, why in verdicts.refuse:
            outcome[f"refused: {why}"] += 1

    arrival = rng.expovariate(offered_per_s)
    number = 0
    while arrival < seconds:
        if ends and ends[0][0] <= arrival:
            now, _, waiter = heappop(ends)
            outcome["in time" if now - waiter.at <= patience_s else "too late"] += 1
            take(shedder.ended(now, limit=1))
            continue
        now = arrival
        number += 1
        take(shedder.arrive(number, now, limit=1)[1])
        arrival += rng.expovariate(offered_per_s)
    return outcome


def test_at_twice_what_it_bears_a_server_stays_useful():
    outcome = serve(Shedder(max_wait_s=0.5), offered_per_s=200, bears_per_s=100, seconds=60, patience_s=0.3, rng=Random(1))
    assert outcome["in time"] > 0.93 * 60 * 100
    assert outcome["too late"] < 0.02 * 60 * 100


def test_a_plain_queue_would_not():
    class Fifo(Shedder):
        def overloaded(self, now):
            return False

    outcome = serve(Fifo(queue=100, max_wait_s=60, target_s=60), offered_per_s=200, bears_per_s=100, seconds=60,
                    patience_s=0.3, rng=Random(1))
    assert outcome["in time"] < 0.05 * 60 * 100  # busy all the time, and nobody is helped


@pytest.mark.parametrize("settings", [{"queue": -1}, {"levels": 0}, {"target_s": 2.0}, {"interval_s": 0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        Shedder(**settings)
