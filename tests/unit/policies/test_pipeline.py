"""explain(): the order drawn, the worst case, and what is risky and why."""

from __future__ import annotations

from datetime import timedelta
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaoki.errors import ConfigError
from yaoki.policies import Policy, Site, backoff, breaker, bulkhead, deadline, pipeline, retry, standard, timeout
from yaoki.service import Service

GOOD = pipeline(deadline(10.0), retry(4, backoff.exponential(0.05), budget=0.1), breaker(), bulkhead(50, queue=100, max_wait=0.5), timeout(1.0))


def test_the_recommended_pipeline_has_no_findings_and_is_drawn_outermost_first() -> None:
    assert GOOD.findings() == []
    assert GOOD.explain() == """\
deadline(10)
  └ retry(4, backoff.exponential(0.05, cap=2, jitter='full'), budget=0.1)
    └ breaker(failure_rate=0.5, window=30, minimum=20, open_for=10)
      └ bulkhead(50, queue=100, max_wait=0.5)
        └ timeout(1)
          └ call

calls sent for one call: at most 4
time for one call: at most 6.35 s"""


def worst(*policies: Policy) -> float:
    return pipeline(*policies).longest_s(inf)


def test_the_worst_case_adds_up() -> None:
    assert worst(timeout(1)) == 1
    assert worst(retry(3, backoff.fixed(0.5)), timeout(1)) == 4
    assert worst(retry(3)) == inf
    assert worst(deadline(2), retry(3, backoff.fixed(0.5)), timeout(1)) == 2
    assert pipeline(retry(3), retry(3, nested=True)).calls_per_call() == 9


@pytest.mark.parametrize(("policies", "about", "words"), [
    ([retry(3), timeout(1)], "retry", "budget"),
    ([timeout(1), retry(3, budget=0.1)], "retry", "inside the attempt timeout"),
    ([breaker(), retry(3, budget=0.1), timeout(1)], "retry", "inside the breaker"),
    ([retry(3, budget=0.1), retry(3, budget=0.1), timeout(1)], "retry", "inside another retry"),
    ([deadline(2), retry(3, backoff.fixed(1), budget=0.1), timeout(1)], "retry", "deadline ends them after 2 s"),
    ([breaker()], "breaker", "without a timeout"),
    ([deadline(1), timeout(1)], "timeout", "not less than the deadline"),
    ([timeout(1), bulkhead(5)], "bulkhead", "counts as the service's time"),
    ([bulkhead(5), retry(3, budget=0.1), timeout(1)], "bulkhead", "only waits for its next attempt"),
])
def test_a_risky_order_is_named_with_its_reason_and_remedy(policies: list[Policy], about: str, words: str) -> None:
    findings = pipeline(*policies).findings()
    assert [(each.about, bool(each.do)) for each in findings if words in each.what or words in each.do] == [(about, True)]


def test_the_default_order_sorts_what_stands_wrong() -> None:
    shuffled = pipeline(*GOOD.policies[::-1])
    assert shuffled.findings()
    assert shuffled.sorted().policies == GOOD.policies
    assert pipeline(pipeline(*GOOD.policies[:2]), *GOOD.policies[2:]).policies == GOOD.policies


def test_on_a_service_the_budget_is_there_by_itself() -> None:
    alone = pipeline(retry(3), timeout(1))
    assert any("budget" in each.what for each in alone.findings(Site()))
    assert "budget" not in "".join(each.what for each in alone.findings(Site(service="hotel")))
    assert "!" not in Service("hotel", policy=alone).explain()


def test_amplification_through_services_that_call_on_is_multiplied() -> None:
    kept = [Service("bank", policy=retry(3, idempotent=True)), Service("payment", policy=retry(3), downstream=("bank",))]
    front = Service("front", policy=retry(3), downstream=("payment",))
    assert "27 calls" in front.explain()
    assert "bank" in front.explain()
    assert kept
    loop = Service("loop", policy=retry(2), downstream=("loop",))
    assert loop.explain()


@given(within=st.floats(0.01, 3600), attempts=st.integers(1, 20), at_once=st.integers(1, 1000))
def test_the_standard_pipeline_fits_into_its_time_whatever_it_is(within, attempts, at_once) -> None:
    made = standard(within, attempts=attempts, at_once=at_once)
    assert made.findings() == []
    assert made.findings(Site(service="x", idempotent=True)) == []
    assert made.longest_s(inf) <= within * (1 + 1e-9)
    assert made.calls_per_call() == attempts
    assert [policy.kind for policy in made.sorted().policies] == [policy.kind for policy in made.policies]


@pytest.mark.parametrize("settings", [{"within": 0}, {"attempts": 0}, {"within": 1.0, "attempt": 2.0}])
def test_the_standard_pipeline_refuses_what_cannot_work(settings) -> None:
    with pytest.raises(ConfigError):
        standard(**settings)


def test_an_attempt_of_the_standard_pipeline_may_be_given() -> None:
    assert "timeout(2)" in standard(timedelta(seconds=5), attempt=timedelta(seconds=2), attempts=2).describe()
