"""The types that users see: signatures go through every decorator, and mistakes are found before anything runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = HERE / "as_a_user.py"


def test_a_users_program_is_typed_and_only_its_mistakes_are_found():
    # In the checkout, so that what `./yk test` has just checked is not checked again.
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", str(PROGRAM)], cwd=HERE.parents[2],
                          capture_output=True, text=True, check=False, timeout=150)
    found: dict[int, set[str]] = {}
    for line, code in re.findall(r"as_a_user\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE):
        found.setdefault(int(line), set()).add(code)
    wrong = {number: set(line.partition("# wrong: ")[2].split(", "))
             for number, line in enumerate(PROGRAM.read_text("utf-8").splitlines(), 1) if "# wrong: " in line}
    assert found == wrong, done.stdout + done.stderr
