"""The code in the pages about the ledger runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = ("reference/ledger.md", "how-to/audit-a-pipeline.md", "how-to/keep-a-ledger.md")
BLOCKS = [(page, number, block) for page in PAGES
          for number, block in enumerate(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL))]


@pytest.mark.parametrize(("page", "number", "block"), BLOCKS, ids=[f"{page}#{number}" for page, number, _ in BLOCKS])
def test_code_in_the_docs_runs(page: str, number: int, block: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", block], cwd=tmp_path, capture_output=True, text=True,
                          check=False, timeout=150)
    assert done.returncode == 0, done.stderr


def test_there_is_code_to_run() -> None:
    assert len(BLOCKS) == 5
