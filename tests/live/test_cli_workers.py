"""`yk db`, `yk worker`, `yk workers`, `yk plan` and `yk runs signal`, as processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from servers import PostgresServer

pytestmark = pytest.mark.live

SAGAS = """
from yaoki import Saga

ask = Saga("ask", input=int)

@ask.wait_for(bool)
async def approval(n: int) -> None: ...

@ask.step(undo=None)
async def {last}(n: int, approval: bool) -> str:
    return f"{{n}} {{approval}}"
"""

START = """
import asyncio, shop, sys, yaoki

async def main():
    async with yaoki.open(sys.argv[1], sagas=[shop.ask]) as app:
        await app.start(shop.ask, 7, id="order-7")

asyncio.run(main())
"""


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


def yk(folder: Path, *words: str) -> tuple[int, list[Any], str]:
    done = subprocess.run([sys.executable, "-m", "yaoki", *words, "--json"], cwd=folder, capture_output=True, text=True, timeout=150, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_schema_is_checked_made_and_left_alone(url: str, tmp_path: Path):
    assert yk(tmp_path, "db", "check", "--db", url)[0] == 1
    code, (made,), _ = yk(tmp_path, "db", "upgrade", "--db", url)
    assert (code, made["before"]) == (0, 0)
    code, (again,), _ = yk(tmp_path, "db", "upgrade", "--db", url)
    assert (code, again["before"]) == (0, made["version"])
    assert yk(tmp_path, "db", "check", "--db", url)[0] == 0
    assert yk(tmp_path, "db", "check", "--db", "sqlite:///x.db")[0] == 2
    assert yk(tmp_path, "workers", "--db", url) == (1, [], "")


def test_a_worker_works_is_listed_is_answered_and_leaves_when_told(url: str, tmp_path: Path):
    (tmp_path / "shop.py").write_text(SAGAS.format(last="ship"))
    worker = subprocess.Popen([sys.executable, "-m", "yaoki", "worker", "shop", "--db", url, "--name", "anna", "--json"], cwd=tmp_path,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stderr is not None
    try:
        assert json.loads(worker.stdout.readline())["event"] == "ready"
        code, rows, _ = yk(tmp_path, "workers", "--db", url)
        assert (code, rows[0]["name"], rows[0]["state"]) == (0, "anna", "alive")
        subprocess.run([sys.executable, "-c", START, url], cwd=tmp_path, check=True, timeout=150)
        (tmp_path / "later.py").write_text(SAGAS.format(last="send"))
        code, rows, _ = yk(tmp_path, "plan", "later", "--db", url)
        assert (code, rows[0]["verdict"]) == (1, "needs mapping")
        assert "ship is gone" in rows[0]["why"]
        assert yk(tmp_path, "plan", "shop", "--db", url)[:2] == (0, [{"saga": "ask", "graph": rows[0]["graph"], "verdict": "same", "why": "", "runs": 1}])
        assert yk(tmp_path, "runs", "signal", "order-7", "aproval", "true", "--db", url)[0] == 2
        assert yk(tmp_path, "runs", "signal", "order-7", "approval", "true", "--db", url)[0] == 0
        until = time.monotonic() + 120
        while "completed" not in json.dumps(yk(tmp_path, "runs", "show", "order-7", "--db", url)[1][0]):
            assert time.monotonic() < until
            time.sleep(0.1)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=100) == 0
        assert yk(tmp_path, "workers", "--db", url)[1][0]["state"] == "gone"
    finally:
        worker.kill()
        worker.communicate()
