"""The code of the pages about messages runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
PAGES = ("reference/messages.md", "how-to/answer-202.md", "how-to/publish-with-your-data.md", "how-to/redrive-what-gave-up.md")


def blocks() -> list[tuple[str, str]]:
    return [(page, block) for page in PAGES
            for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)]


def test_there_is_code_to_be_tested():
    assert {page for page, _ in blocks()} >= {"reference/messages.md", "how-to/answer-202.md"}


@pytest.mark.parametrize(("page", "block"), blocks())
def test_the_code_of_the_page_runs(page, block, tmp_path):
    done = subprocess.run([sys.executable, "-W", "error", "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, f"{page}:\n{done.stderr}"
