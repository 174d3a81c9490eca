"""kill -9 at random instants: every acknowledged run ends all or nothing, read from the service's own database."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "crash_worker.py"
EFFECTS = {"hotel", "flight", "payment", "mail"}

pytestmark = pytest.mark.live


def start(folder: Path, runs: int) -> subprocess.Popen[bytes]:
    output = (folder / "output.txt").open("ab")
    try:
        return subprocess.Popen([sys.executable, str(WORKER), str(folder), str(runs)], stdout=output)
    finally:
        output.close()


def torture(folder: Path, *, kills: int, runs: int, seed: int) -> tuple[int, int]:
    """Kill the worker `kills` times, let it end, and check. Returns how many runs completed and were undone.

    Three of the kills at least are to hit runs under way: where all runs have ended before, on a quick machine, there come more of both.
    """
    rng = random.Random(seed)
    killed = in_the_middle = 0
    while killed < kills or in_the_middle < 3:
        assert killed < 10 * kills, "no kill hits a run under way: the test has not tested"
        worker = start(folder, runs)
        if rng.random() < 0.8:  # else it is killed while it starts
            wait_for_words(folder, worker)
        time.sleep(rng.uniform(0.0, 0.4))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        killed += 1
        if left := unfinished(folder):
            in_the_middle += 1
        elif left == 0:
            runs += 500
    worker = start(folder, runs)
    assert worker.wait(timeout=900) == 0
    return check(folder, runs)


def wait_for_words(folder: Path, worker: subprocess.Popen[bytes]) -> None:
    """Until the worker says something: it takes up runs by then."""
    output = folder / "output.txt"
    before, until = output.stat().st_size, time.monotonic() + 120
    while output.stat().st_size == before and worker.poll() is None:
        assert time.monotonic() < until, "it says nothing"
        time.sleep(0.01)


def unfinished(folder: Path) -> int | None:
    """How many runs have begun, and not ended; None: none has begun."""
    if not (folder / "journal.db").exists():
        return None
    journal = sqlite3.connect(folder / "journal.db")
    try:
        begun, left = journal.execute("SELECT count(*), count(*) FILTER (WHERE finished_at = 0) FROM run").fetchone()
    except sqlite3.OperationalError:  # killed before the schema was there
        return None
    else:
        return int(left) if begun else None
    finally:
        journal.close()


def check(folder: Path, runs: int) -> tuple[int, int]:
    """How many runs completed and were undone."""
    lines = (folder / "output.txt").read_text().split()
    assert lines[-1] == "ended"
    acknowledged = {line for line in lines if line.startswith("trip-")}
    journal = sqlite3.connect(folder / "journal.db")
    states = dict(journal.execute("SELECT id, state FROM run"))
    journal.close()
    assert acknowledged <= states.keys(), "an acknowledged run is lost"
    assert len(states) == runs
    service = sqlite3.connect(folder / "service.db")
    effects: dict[str, set[str]] = {}
    for key, in service.execute("SELECT key FROM effect WHERE state = 'done'"):
        run, _, step = key.partition("/")
        effects.setdefault(run, set()).add(step)
    service.close()
    for run, state in states.items():
        expected = EFFECTS if state == "completed" else set()
        assert state in {"completed", "undone"}, f"{run} ended {state}"
        assert effects.get(run, set()) == expected, f"{run} is {state}, and its effects are {effects.get(run)}"
    completed = sum(state == "completed" for state in states.values())
    return completed, runs - completed


@pytest.mark.timeout(900)
def test_a_worker_killed_at_random_instants_loses_and_doubles_nothing(tmp_path: Path):
    completed, undone = torture(tmp_path, kills=10, runs=1500, seed=1)
    assert completed > 0
    assert undone >= 1500 // 4


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
def test_hundreds_of_kills(tmp_path: Path, seed: int):
    torture(tmp_path, kills=20, runs=3000, seed=seed)
