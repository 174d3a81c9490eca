"""The README's example is real code: it defines, checks and draws."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_the_readmes_example_can_be_imported_and_drawn(name: str, tmp_path: Path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    assert len(blocks) == 1
    assert len(blocks[0].splitlines()) <= 45
    (tmp_path / "trips.py").write_text(blocks[0])
    drawn = subprocess.run([sys.executable, "-m", "yaoki", "graph", "trips:book_trip"], cwd=tmp_path, capture_output=True,
                           text=True, check=False, timeout=150)
    assert drawn.returncode == 0, drawn.stderr
    assert "payment" in drawn.stdout


def test_every_link_of_the_readmes_and_of_the_map_leads_somewhere():
    for page in [ROOT / "README.md", ROOT / "README.ja.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
