"""What `./yk test` draws: the same examples on every machine, whatever was imported before and however slow it is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers

import drawing


def drawn(profile: str) -> list[str]:
    seen: list[str] = []

    @settings(settings.get_profile(profile), database=None)
    @given(st.integers(), st.floats(), st.text())
    def draw(whole: int, broken: float, text: str) -> None:
        seen.append(repr((whole, broken, text)))

    draw()
    assert len(seen) > 50
    return seen


def test_a_landing_draws_the_same_whatever_was_imported_and_a_search_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(providers, "_get_local_constants", drawing.no_constants)
    before = drawn("landing")
    (tmp_path / "constants.py").write_text(f"NUMBERS = {list(range(1_000_001, 1_000_400))}\n")
    spec = importlib.util.spec_from_file_location("constants_of_somebody", tmp_path / "constants.py")
    monkeypatch.setitem(sys.modules, "constants_of_somebody", importlib.util.module_from_spec(spec))
    assert drawn("landing") == before
    assert drawn("search") != before


@pytest.mark.parametrize("profile", ["search", "landing"])
def test_no_example_is_held_to_a_clock(profile: str):
    assert settings.get_profile(profile).deadline is None
    assert HealthCheck.too_slow in settings.get_profile(profile).suppress_health_check
