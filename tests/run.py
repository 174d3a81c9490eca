"""What `./yk test` and CI run: style, layers, types, then every test. Words are passed on to pytest.

A test with real processes that failed is run again three times, alone (docs/decisions/0032). If it passes each time, the run is not
refused; it says UNSTABLE at its end, and somebody has a bug to find.

    ./yk test                      everything CI runs
    ./yk test --fast               no live servers, no kill -9
    ./yk test tests/unit -k retry  only these tests, without the checks before them
    ./yk test --long               also the long tortures, and examples that nobody has drawn before
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
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

# What the programs that tests start import most. They write no bytecode, so in a fresh checkout each of the hundreds of them would
# compile all this for itself: a second and a half of CPU time each, and another machine than the one the tests were written on.
IMPORTED = ["aiobotocore.session", "asyncpg", "boto3", "click", "fastapi", "flask", "grpc", "httpx", "hypothesis", "msgspec", "nats", "numpy",
            "psycopg", "pytest", "redis.asyncio", "requests", "rich", "sqlalchemy", "starlette.applications", "uvicorn"]

LOOKS = 3
MOST_UNSTABLE = 2
"""With more of them it is not luck."""


def main(words: list[str]) -> int:
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # programs that tests write anew within a second are read anew
    env.pop("PYTHONPATH", None)
    pytest = [sys.executable, "-m", "pytest"]
    chosen = [word for word in words if not word.startswith("--")]
    if "--fast" in words:
        words = [*(word for word in words if word != "--fast"), "-m", "not live and not long"]
    if chosen:
        return subprocess.run([*pytest, *words], cwd=ROOT, env=env, check=False).returncode
    compile_once()
    for name, command in CHECKS:
        began = time.monotonic()
        done = subprocess.run([str(word) for word in command], cwd=ROOT, env=env, check=False, capture_output=True, text=True)
        print(f"{name:<8}{'ok' if done.returncode == 0 else 'FAILED'}  {time.monotonic() - began:.1f} s", flush=True)
        if done.returncode:
            print(done.stdout, done.stderr)
            return 1
    drawn: list[str] = []
    if "--long" not in words:  # the same examples every time (see tests/drawing.py), and sets in the same order
        drawn, env["PYTHONHASHSEED"] = ["--hypothesis-profile", "landing"], "0"
    calm, live = ([*pytest, "--durations=8", *drawn, *how, *words] for how in HALVES)
    code = subprocess.run(calm, cwd=ROOT, env=env, check=False).returncode
    with tempfile.TemporaryDirectory() as folder:
        failed = Path(folder, "failed")
        of_live = subprocess.run([*live, "--failed-to", str(failed)], cwd=ROOT, env=env, check=False).returncode
        if of_live == 1 and failed.exists():
            of_live = second_look(failed.read_text("utf-8").splitlines(), [*pytest, *drawn], env)
    return code or of_live


def compile_once() -> None:
    """Write the bytecode of ours, and of what our programs import. Where that cannot be written, all is as before, and slower."""
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}}
    for words in (["-m", "compileall", "-q", "src"], ["-c", f"import {', '.join(IMPORTED)}"]):
        subprocess.run([sys.executable, *words], cwd=ROOT, env=env, check=False, capture_output=True)


def second_look(failed: list[str], pytest: list[str], env: dict[str, str]) -> int:
    """Run these again, alone. Returns 0 if each passes each time, and says so where it is seen."""
    if len(failed) > MOST_UNSTABLE:
        return 1
    print(f"\na second look at {', '.join(failed)}", flush=True)
    for _ in range(LOOKS):
        if subprocess.run([*pytest, *failed], cwd=ROOT, env=env, check=False).returncode:
            return 1
    for each in failed:
        print(f"UNSTABLE  {each} failed among the others, as printed above, and passed {LOOKS} times alone: find out why", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
