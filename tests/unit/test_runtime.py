"""The runtime: ids that never go back, scopes that do not leak, forks that do not repeat their parent."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from itertools import pairwise

import pytest

from virtual_time import Clock, run
from yaoki import runtime
from yaoki.runtime import RealRuntime

HEX = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")  # a UUID of version 7 (RFC 9562), without dashes


def test_ids_are_uuids_of_version_7_that_sort_by_time_and_never_repeat() -> None:
    before_ms = int(time.time() * 1000)
    ids = [runtime.new_id() for _ in range(20_000)]
    after_ms = time.time() * 1000
    assert all(HEX.fullmatch(each) for each in ids)
    assert all(before < after for before, after in pairwise(ids))
    assert before_ms <= int(ids[0][:12], 16) <= int(ids[-1][:12], 16) <= after_ms


def test_ids_keep_growing_when_the_wall_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    made = RealRuntime()
    now_ns = [1_800_000_000_000_000_000]
    monkeypatch.setattr("yaoki.runtime.real.time.time_ns", lambda: now_ns[0])
    ids = []
    for step_ns in (0, 5_000_000, -3_600_000_000_000, 0, 0, 3_600_010_000_000):
        now_ns[0] += step_ns
        ids.append(made.new_id())
    assert ids == sorted(set(ids))


def test_threads_never_draw_the_same_id() -> None:
    drawn: list[list[str]] = [[] for _ in range(4)]

    def draw(into: list[str]) -> None:
        into.extend(runtime.new_id() for _ in range(3000))

    threads = [threading.Thread(target=draw, args=(into,)) for into in drawn]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    together = [each for into in drawn for each in into]
    assert len(set(together)) == len(together)
    assert all(into == sorted(into) for into in drawn)


def test_a_forked_child_draws_its_own_jitter_and_ids_and_gets_its_own_threads() -> None:
    # In a process of its own: pytest's is full of threads, and forking it would be no test of ours.
    script = """
import asyncio, os
from yaoki import runtime
async def blocking():
    return await runtime.run_blocking(lambda: 7)
asyncio.run(blocking())                      # the parent has a pool of threads
runtime.rng().random()
read, write = os.pipe()
if os.fork() == 0:
    assert asyncio.run(blocking()) == 7
    os.write(write, f"{runtime.rng().random()} {runtime.new_id()}".encode())
    os._exit(0)
os.wait()
child = os.read(read, 200).decode().split()
print(child[0] != str(runtime.rng().random()), child[1] != runtime.new_id())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=150, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_a_runtime_is_in_force_in_its_own_task_and_thread_only() -> None:
    seen: dict[str, bool] = {}

    async def neighbour() -> None:
        seen["task"] = runtime.current() is runtime.REAL

    async def main() -> None:
        other = asyncio.ensure_future(neighbour())
        with runtime.use(Clock()) as clock:
            assert runtime.current() is clock
            await other
            thread = threading.Thread(target=lambda: seen.setdefault("thread", runtime.current() is runtime.REAL))
            thread.start()
            thread.join()
        assert runtime.current() is runtime.REAL

    asyncio.run(main())
    assert seen == {"task": True, "thread": True}


def test_every_function_asks_the_runtime_in_force() -> None:
    with runtime.use(Clock(start=5.0)) as clock:
        assert (runtime.monotonic(), runtime.unix_time()) == (5.0, 1_700_000_005.0)
        runtime.sleep_blocking(2)
        assert runtime.monotonic() == 7.0
        assert runtime.rng() is clock.rng

    async def main() -> float:
        began = runtime.monotonic()
        await runtime.sleep(3600)
        return runtime.monotonic() - began

    assert run(main()) == pytest.approx(3600)


user: ContextVar[str] = ContextVar("user", default="")


def test_a_blocking_function_runs_in_another_thread_with_this_context() -> None:
    async def main() -> tuple[str, bool, int]:
        user.set("ann")
        name, thread = await runtime.run_blocking(lambda add: (user.get() + add, threading.get_ident()), "!")
        with pytest.raises(LookupError):
            await runtime.run_blocking(lambda: {}["x"])
        task = runtime.spawn(asyncio.sleep(0, 3), name="three")
        assert task.get_name() == "three"
        return name, thread != threading.get_ident(), await task

    assert asyncio.run(main()) == ("ann!", True, 3)
