"""The code in the policies' pages runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
PAGES = [REFERENCE / "service.md",
         *(REFERENCE / "policies" / f"{name}.md" for name in ("backoff", "breaker", "bulkhead", "classify", "deadline", "pipeline", "retry", "standard", "timeout"))]
HOW_TO = [REFERENCE.parent / "how-to" / "test-what-happens-on-failure.md"]
HEADINGS = ["When", "Use", "Defaults", "Events", "Diagram", "When it hurts", "Source"]


@pytest.mark.parametrize("page", [*PAGES, *HOW_TO], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_from_top_to_bottom(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)
    if page.stem in ("pipeline", "standard", "test-what-happens-on-failure"):
        shown = capsys.readouterr().out.strip()
        assert all(f"    {line}" in text for line in shown.splitlines() if line), shown


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_every_page_of_a_policy_has_the_same_headings(page: Path) -> None:
    assert re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE) == HEADINGS
