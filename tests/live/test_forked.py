"""Blocking handles in programs that fork and that have threads: gunicorn, Celery, Django."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest

import yaoki
from servers import PostgresServer, free_port
from yaoki import Saga
from yaoki.errors import JournalError, NoTransactionError, UsageError

pytestmark = pytest.mark.live

PROGRAM = Path(__file__).with_name("forking_program.py")


def told(url: str) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, str(PROGRAM), url], check=False, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_forked_child_opens_an_app_of_its_own_on_a_shared_journal_and_its_parent_does_not_notice(postgres: PostgresServer):
    assert told(postgres.new_database()) == [
        {"who": "parent", "got": 1}, {"who": "child", "got": 2}, {"who": "child again", "got": 1}, {"who": "parent after", "got": 3}]


def test_on_a_journal_with_one_owner_the_child_is_told_what_to_do(tmp_path: Path):
    parent, child, after = told(f"sqlite:///{tmp_path}/runs.db")
    assert (parent["got"], after["got"]) == (1, 3)
    assert child["got"]["error"] == "ForkedError"
    assert "post_fork" in child["got"]["do"]


ORPHAN = """
import os, sys, time, yaoki
from forking_program import echo
app = yaoki.open(sys.argv[1], sagas=[echo]).__enter__()
if not os.fork():
    os.close(1)
    time.sleep(600)
os._exit(0)
"""


def test_a_child_that_outlives_its_parent_does_not_keep_the_file_locked(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/runs.db"
    program = f"import os\n{ORPHAN}".replace("time.sleep(600)", "print(os.getpid(), file=sys.stderr, flush=True); time.sleep(600)")
    done = subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE, text=True, cwd=PROGRAM.parent)
    assert done.stderr is not None
    child = int(done.stderr.readline())
    try:
        assert done.wait(100) == 0
        with yaoki.open(url, sagas=[echo_saga()]):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        done.stderr.close()


def echo_saga() -> Saga[int]:
    saga = Saga("echo", input=int)

    @saga.step(undo=None)
    def say(n: int) -> int:
        return n

    return saga


@pytest.mark.parametrize("journal", ["sqlite", "postgres"])
def test_any_number_of_threads_share_one_handle(journal: str, tmp_path: Path, request: pytest.FixtureRequest):
    url = f"sqlite:///{tmp_path}/runs.db" if journal == "sqlite" else request.getfixturevalue("postgres").new_database()
    saga, got = echo_saga(), dict[int, list[int]]()
    with yaoki.open(url, sagas=[saga]) as app:

        def client(number: int) -> None:
            runs = [app.start(saga, number * 100 + n, id=f"{number % 4}-{n}" if number < 4 else "") for n in range(15)]
            got[number] = [run.result(100) for run in runs]

        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == {number: [number * 100 + n for n in range(15)] for number in range(8)}


def test_a_handle_says_when_it_is_closed_and_when_it_would_wait_for_itself(tmp_path: Path):
    saga = Saga("waits", input=int)

    @saga.step(undo=None)
    async def deadlock(n: int) -> str:
        try:
            app.start(saga, n + 1)
        except UsageError as error:
            return error.message
        return "nothing"

    with yaoki.open(f"sqlite:///{tmp_path}/runs.db", sagas=[saga]) as app:
        assert "would wait for itself" in app.start(saga, 1).result(100)
    with pytest.raises(JournalError, match="closed"):
        app.start(saga, 2)


def test_a_plain_program_starts_a_run_in_its_own_psycopg_transaction(postgres: PostgresServer):
    url, saga = postgres.new_database(), echo_saga()
    with yaoki.open(url, sagas=[saga]) as app, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE orders (n int)")
        run = app.start(saga, 7, id="r", connection=connection)
        connection.execute("INSERT INTO orders VALUES (7)")
        connection.commit()
        assert run.result(100) == 7
        lost = app.start(saga, 8, id="lost", connection=connection)
        connection.rollback()
        with pytest.raises(yaoki.YaokiError, match="no run"):
            lost.result(100)
        connection.autocommit = True
        with pytest.raises(NoTransactionError):
            app.start(saga, 9, connection=connection)


SITE = """
import yaoki
from forking_program import echo
from flask import Flask

app = Flask(__name__)
runs = yaoki.open({url!r}, sagas=[echo]).__enter__()          # before gunicorn forks: --preload

@app.get("/<int:n>")
def answer(n):
    import os
    return {{"got": runs.start(echo, n).result(100), "pid": os.getpid()}}
"""


def test_gunicorn_with_preload_serves_from_each_of_its_workers(postgres: PostgresServer, tmp_path: Path):
    (tmp_path / "site_of_runs.py").write_text(SITE.format(url=postgres.new_database()))
    port = free_port()
    words = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--threads", "2", "--timeout", "300", "--bind", f"127.0.0.1:{port}",
             "--no-control-socket", "--pythonpath", f"{tmp_path},{PROGRAM.parent}", "site_of_runs:app"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            seen = {_asked(server, f"http://127.0.0.1:{port}/{n}", n) for n in range(10)}
            first = min(seen)
            os.kill(first, signal.SIGSTOP)  # whoever is idle takes the next request, and that may always be the same one
            try:
                seen |= {_asked(server, f"http://127.0.0.1:{port}/{n}", n) for n in range(10, 20)} - {first}
            finally:
                os.kill(first, signal.SIGCONT)
        finally:
            server.terminate()
            server.wait(60)
    assert server.pid not in seen
    assert len(seen) >= 2, "several workers have answered"


def _asked(server: subprocess.Popen[str], url: str, n: int) -> int:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert server.poll() is None, server.stdout.read() if server.stdout else ""
        try:
            with urllib.request.urlopen(url, timeout=110) as reply:
                told = json.loads(reply.read())
        except ConnectionError:
            time.sleep(0.1)
        except OSError as error:
            if "refused" not in str(error):
                raise
            time.sleep(0.1)
        else:
            assert told["got"] == n
            return int(told["pid"])
    raise AssertionError("the server never came up")
