"""Nothing inside a universe reaches the real world unseen."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import secrets
import socket
import subprocess
import threading
import time
import uuid
from time import sleep
from time import time as now_as_imported

import pytest

from yaoki.errors import ConfigError
from yaoki.explore import Scenario, explore
from yaoki.explore.runtime import EPOCH_S


def answer(main, **settings):
    report = explore(Scenario(main, **settings), faults=0)
    assert report.ok, report.text()
    return report.baseline


def test_clocks_are_virtual_wherever_they_are_read():
    async def main():
        began = time.time(), time.monotonic(), time.perf_counter(), now_as_imported(), dt.datetime.now(dt.UTC)
        await asyncio.sleep(90)
        ended = time.time(), time.monotonic(), time.perf_counter(), now_as_imported(), dt.datetime.now(dt.UTC)
        lengths = [b - a for a, b in zip(began[:4], ended[:4], strict=True)] + [(ended[4] - began[4]).total_seconds()]
        return lengths == [90.0] * 5 and began[0] == EPOCH_S

    before = time.time()
    assert answer(main) == "returns True"
    assert 0 <= time.time() - before < 60, "the real clock is back"


def test_randomness_is_seeded():
    async def main():
        return random.random(), uuid.uuid4().hex, uuid.uuid1().hex, secrets.token_hex(4)

    first = answer(main)
    assert answer(main) == first
    assert explore(Scenario(main), faults=0, seed=1).baseline != first


@pytest.mark.parametrize(("name", "act"), [
    ("time.sleep", lambda: sleep(1)),
    ("threading.Thread.start", lambda: threading.Thread(target=print).start()),
    ("socket.connect", lambda: socket.socket().connect(("127.0.0.1", 1))),
    ("socket.getaddrinfo", lambda: socket.getaddrinfo("localhost", 80)),
    ("subprocess.Popen", lambda: subprocess.run(["true"], check=True)),
])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_reaches_out_is_an_error_that_names_its_line_even_when_it_is_swallowed(name, act):
    async def main():
        try:
            act()
        except Exception:
            return "swallowed"

    report = explore(Scenario(main), faults=0)
    assert ("no_escape",) in report.signatures
    assert f"{name} was called inside the explorer, at {__file__}:" in report.text()


def test_strict_makes_clocks_and_randomness_errors():
    async def main():
        return time.time()

    assert ("no_escape",) in explore(Scenario(main, seal="strict"), faults=0).signatures

    async def draws():
        return random.random()

    assert ("no_escape",) in explore(Scenario(draws, seal="strict"), faults=0).signatures


def test_an_open_universe_and_a_wrong_word():
    async def main():
        return time.time() < EPOCH_S

    assert answer(main, seal="off") == "returns True"
    with pytest.raises(ConfigError):
        explore(Scenario(main, seal="wide"), faults=0)


def test_threads_of_async_code_run_in_place():
    async def main():
        return await asyncio.to_thread(threading.current_thread) is threading.current_thread()

    assert answer(main) == "returns True"
