"""The tutorial, typed by a machine: its files, its commands, its kill -9, its witness."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "first-saga.md"
RUN = [sys.executable, "-m", "yaoki", "run", "orders:place_order", "orders.jsonl", "--db", "sqlite:///orders.db", "--concurrency", "20"]

pytestmark = pytest.mark.live


def write_files(folder: Path) -> str:
    page = PAGE.read_text()
    for name, code in re.findall(r"```python file=(\S+)\n(.*?)```", page, re.DOTALL):
        (folder / name).write_text(code)
    return page


def test_the_tutorial_survives_its_own_kill(tmp_path: Path):
    page = write_files(tmp_path)
    assert "yk run orders:place_order orders.jsonl --db sqlite:///orders.db --concurrency 20" in page

    def python(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=150)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "charge" in python("-m", "yaoki", "graph", "orders:place_order")
    (tmp_path / "orders.jsonl").write_text(python("make.py"))
    killed = subprocess.Popen(RUN, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_orders(tmp_path, 30)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert "order-" in python("-m", "yaoki", "runs", "list", "--db", "sqlite:///orders.db")
    python("-m", "yaoki", "runs", "show", "order-0", "--db", "sqlite:///orders.db")
    again = subprocess.run(RUN, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=150)
    assert again.returncode in {0, 1}, again.stderr
    assert python("check.py").strip() in page


def wait_for_orders(folder: Path, least: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        time.sleep(0.01)
        if (folder / "orders.db").exists():
            journal = sqlite3.connect(f"file:{folder}/orders.db?mode=ro", uri=True)
            try:
                if journal.execute("SELECT count(*) FROM run").fetchone()[0] >= least:
                    return
            except sqlite3.OperationalError:
                pass
            finally:
                journal.close()
    raise AssertionError("the first run never began")
