"""Decorators keep signatures: what a type checker sees behind a policy is what it saw before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

RIGHT = """
from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from yaoki.policies import Pipeline, Retry, backoff, breaker, bulkhead, deadline, pipeline, retry, timeout
from yaoki.service import Service

hotel = Service("hotel", policy=pipeline(deadline(5.0), retry(3, backoff.exponential(0.1))))

@retry(3, on=(ValueError, OSError))
def seats(date: str, *, most: int = 9) -> int:
    return most

@hotel(idempotent=True)
async def book(trip: str) -> list[str]:
    return [trip]

@hotel
def cancel(trip: str) -> None: ...

class Desk:
    @bulkhead(5)
    async def ask(self, question: str) -> bytes:
        return question.encode()

async def main() -> None:
    assert_type(seats("today", most=3), int)
    assert_type(await book("x"), list[str])
    assert_type(await Desk().ask("?"), bytes)
    assert_type(await timeout(1.0).call(Desk().ask, "?"), bytes)
    assert_type(breaker().call(seats, "today", most=3), int)
    assert_type(await hotel.call(book, "x"), list[str])
    assert_type(pipeline(retry(3)), Pipeline)
    assert_type(retry(3), Retry)
    with deadline(1.0):
        async with bulkhead(3) as places:
            assert_type(places.in_use, int)
"""

WRONG = {
    "seats(5)": "arg-type", "seats('today', least=3)": "call-arg", "cancel()": "call-arg", "book('x') + 1": "operator",
    "breaker().call(seats, 5)": "arg-type", "retry('3')": "arg-type", "pipeline(seats)": "arg-type", "breaker(0.5)": "call-arg",
}


def test_mypy_sees_through_every_decorator(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(RIGHT)
    wrong.write_text(RIGHT + "".join(f"\n{line}  # {kind}" for line, kind in WRONG.items()) + "\n")
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), str(right), str(wrong)],
                          cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert not [line for line in errors if "right.py" in line], done.stdout
    lines = wrong.read_text().splitlines()
    found = {lines[int(line.split(":")[1]) - 1].partition("  #")[0]: line.rpartition("[")[2].rstrip("]") for line in errors}
    assert found == WRONG
