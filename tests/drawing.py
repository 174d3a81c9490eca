"""What Hypothesis draws. Examples are drawn anew each time, so that who works on Yaoki finds what nobody has thought of.
`./yk test`, and so CI, draws the same ones every time: a change is not refused for an example that it did not bring.
Neither looks at a clock: a slow machine is no failure.

    pytest tests/unit                                    "search": new examples
    pytest tests/unit --hypothesis-profile landing       the examples of `./yk test`
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.conjecture.providers import Constants

_TIMELESS = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("search", **_TIMELESS, derandomize=False)  # also where Hypothesis sees that it is CI
settings.register_profile("landing", **_TIMELESS, derandomize=True, database=None)


def no_constants(nothing: Constants = providers._local_constants) -> Constants:
    """Instead of those of all modules imported so far: what is drawn would depend on the order of the tests."""
    return nothing


def pytest_configure(config: pytest.Config) -> None:
    """A plugin of the suite (tests/conftest.py)."""
    chosen = config.getoption("--hypothesis-profile") or "search"
    settings.load_profile(chosen)
    if chosen == "landing":
        providers._get_local_constants = no_constants
