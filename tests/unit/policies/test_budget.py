"""Budgets whose tokens fade."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaoki.errors import ConfigError
from yaoki.policies import budget
from yaoki.policies.budget import Budget, FadingBudget


class Timed(FadingBudget):
    def __init__(self, **settings: float) -> None:
        self.now = 0.0
        super().__init__(**settings)

    def _now(self) -> float:
        return self.now


def test_what_was_earned_long_ago_pays_for_nothing():
    purse = Timed(fade=30.0)
    for _ in range(1000):
        purse.now += 0.1
        purse.deposit()
    purse.now += 3600.0
    assert not purse.withdraw()


def test_a_busy_client_has_its_whole_burst_as_without_fading():
    purse, plain = Timed(fade=30.0), Budget()
    for _ in range(10_000):
        purse.now += 0.01
        purse.deposit()
        plain.deposit()
    assert [purse.withdraw() for _ in range(11)] == [plain.withdraw() for _ in range(11)] == [True] * 10 + [False]


def test_a_sparse_client_repeats_about_each_third_failed_call():
    purse = Timed(fade=30.0, start=0.0)
    repeated = 0
    for _ in range(300):
        for _ in range(30):
            purse.now += 10.0
            purse.deposit()
        repeated += purse.withdraw()
    assert 80 <= repeated <= 110


@given(st.lists(st.tuples(st.sampled_from(["wait", "deposit", "withdraw"]), st.floats(0, 100)), max_size=200),
       st.floats(0.01, 1000), st.floats(0, 2))
def test_it_never_gives_more_than_one_that_does_not_fade(acts, fade, start):
    purse = Timed(fade=fade, start=start)
    given_out = earned = 0.0
    for act, seconds in acts:
        if act == "wait":
            purse.now += seconds
        elif act == "deposit":
            purse.deposit()
            earned += purse.ratio
        else:
            given_out += purse.withdraw()
        assert given_out <= start + earned + 1e-6


def test_the_same_history_gives_the_same_answers():
    def answers() -> list[bool]:
        purse, given_out = Timed(fade=5.0), []
        for number in range(200):
            purse.now += number % 7
            purse.deposit()
            if number % 3 == 0:
                given_out.append(purse.withdraw())
        return given_out

    assert answers() == answers()


def test_it_is_made_by_budget_and_says_so():
    assert repr(budget(0.2, fade=30)) == "budget(0.2, fade=30)"
    assert type(budget()) is Budget
    with pytest.raises(ConfigError, match="fade"):
        budget(fade=0)
