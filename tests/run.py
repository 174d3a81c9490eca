"""What `./yk test` and CI run: style, layers, types, then every test. Words are passed on to pytest.

    ./yk test                      everything CI runs
    ./yk test --fast               no live servers, no kill -9
    ./yk test tests/unit -k retry  only these tests, without the checks before them
    ./yk test --long               also the long tortures, and examples that nobody has drawn before
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

CHECKS = [
    ("style", [BIN / "ruff", "check", "--quiet", "src", "tests", "benchmarks"]),
    ("layers", [BIN / "lint-imports", "--no-cache"]),
    ("types", [BIN / "mypy", "--no-error-summary"]),
]

# What only computes runs on two processes; what starts servers and kills processes has the machine to itself.
HALVES = [
    ["tests/unit", "tests/simulation", "-n", "2", "--dist", "loadfile", "--max-worker-restart", "0"],  # restarted, a half may never end
    ["tests/contracts", "tests/live"],
]


def main(words: list[str]) -> int:
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("PYTHONPATH", None)
    pytest = [sys.executable, "-m", "pytest"]
    chosen = [word for word in words if not word.startswith("--")]
    if "--fast" in words:
        words = [*(word for word in words if word != "--fast"), "-m", "not live and not long"]
    if chosen:
        return subprocess.run([*pytest, *words], cwd=ROOT, env=env, check=False).returncode
    for name, command in CHECKS:
        began = time.monotonic()
        done = subprocess.run([str(word) for word in command], cwd=ROOT, env=env, check=False, capture_output=True, text=True)
        print(f"{name:<8}{'ok' if done.returncode == 0 else 'FAILED'}  {time.monotonic() - began:.1f} s", flush=True)
        if done.returncode:
            print(done.stdout, done.stderr)
            return 1
    drawn = [] if "--long" in words else ["--hypothesis-profile", "landing"]  # the same examples every time; see tests/drawing.py
    codes = [subprocess.run([*pytest, "--durations=8", *drawn, *how, *words], cwd=ROOT, env=env, check=False).returncode for how in HALVES]
    return max(codes, key=abs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
