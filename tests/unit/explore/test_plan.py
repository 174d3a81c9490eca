"""Replay tokens, the catalogue, shrinking."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaoki.chaos import faults
from yaoki.errors import ConfigError
from yaoki.explore import FakeService, Scenario, explore, replay
from yaoki.explore.plan import Planned, Settings, parse, token
from yaoki.explore.shrink import shrink

SITES = st.from_regex(r"[a-z][a-z0-9_.>!:/-]{0,20}", fullmatch=True)
PLANS = st.lists(st.builds(Planned, SITES, st.integers(0, 99), st.sampled_from(sorted(faults.BY_ID))), max_size=4).map(tuple)


@given(PLANS, st.builds(Settings, st.integers(0, 9999), st.integers(0, 9999)))
def test_a_token_reads_back_as_what_it_was_made_of(plan, settings):
    assert parse(token(plan, settings)) == (plan, settings)


@pytest.mark.parametrize("text", ["", "yk1:", "yk9:none", "yk1:a@b=call.reject", "yk1:a@0=call.nonsense", "yk1:none,colour=3", "hello"])
def test_what_is_not_a_token_is_refused_with_a_remedy(text):
    with pytest.raises(ConfigError) as raised:
        parse(text)
    assert raised.value.do


def test_an_unknown_fault_names_the_nearest():
    with pytest.raises(ConfigError) as raised:
        faults.find("call.lost_akc")
    assert "call.lost_ack" in raised.value.do


def test_ids_are_unique_and_every_fault_says_what_happened():
    assert len(faults.BY_ID) == len(faults.CATALOGUE)
    assert all(fault.says and fault.at for fault in faults.CATALOGUE)
    assert {fault.id for fault in faults.chosen(["crash"])} == {"crash.before_effect", "crash.after_effect", "crash.after_checkpoint", "crash.before_ack"}


def test_a_plan_that_does_not_apply_any_more_says_so():
    shop = FakeService("shop")
    with pytest.raises(ConfigError, match="never reached"):
        replay(Scenario(lambda: shop.book("a", key="a")), "yk1:shop.pay@0=call.reject")


def test_the_smallest_plan_is_told():
    """Three faults are planned; one is enough."""
    shop = FakeService("shop")

    async def main():
        for _ in range(5):
            with contextlib.suppress(Exception):
                return await shop.book("a")
        return None

    scenario = Scenario(main)
    scenario.baseline = scenario.execute()
    big = scenario.execute((Planned("shop.book", 0, "call.reject"), Planned("shop.book", 1, "call.lost_ack"), Planned("shop.book", 2, "call.reject")))
    assert big.signature
    assert shrink(scenario, big).plan == (Planned("shop.book", 0, "call.lost_ack"),)


def test_a_report_names_the_cause_and_the_replay_shows_it():
    shop = FakeService("shop")

    async def main():
        for _ in range(5):
            with contextlib.suppress(Exception):
                return await shop.book("a")
        return None

    report = explore(Scenario(main, same_answer=False), faults=1)
    text = report.text()
    assert "no_double_effect: shop booked a 2 times" in text
    assert "same idempotency key" in text
    assert "yk1:shop.book@0=call.lost_ack" in text
    run, story = replay(Scenario(main), "yk1:shop.book@0=call.lost_ack")
    assert "no_double_effect" in run.signature
    assert "⚡ call.lost_ack" in story.text()
