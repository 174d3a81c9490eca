"""The pages of the policies: the same headings on each, and code that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from yaoki.policies.policy import ORDER

FOLDER = Path(__file__).parents[3] / "docs/reference/policies"
PAGES = ["adaptive-limit", "cache", "failover", "fallback", "hedge", "load-shedding", "pushed", "rate-limit", "throttle"]
PARTS = ["**When.**", "## Use", "## Defaults", "## Events", "## Diagram", "## When it hurts", "## Source"]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_same_parts_in_the_same_order(page):
    text = (FOLDER / f"{page}.md").read_text()
    places = [text.find(part) for part in PARTS]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page):
    names: dict[str, object] = {"__name__": "page"}
    blocks = re.findall(r"```python\n(.*?)```", (FOLDER / f"{page}.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, f"{page}.md", "exec"), names)


def test_pages_that_are_linked_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+\.md)\)", (FOLDER / f"{page}.md").read_text()):
            found = (FOLDER / target).resolve()
            assert found.exists() or found.stem in ORDER, f"{page}.md links {target}"
