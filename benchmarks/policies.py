"""What a policy costs a call: ours beside ten peers, as ratios to a bare call, in one run.

    python benchmarks/policies.py [--json] [--quick] [--save]

Every candidate is a callable without arguments that makes one logical call of a function that returns its argument.

    happy     the function returns at once
    fail>ok   it raises first and returns at the second call: a retry is called once, a breaker alone twice

One pinned core, thread CPU time, small batches, all candidates once a round in a fresh order, beside the round's own bare
call; the ratio is the median of the rounds' ratios. Nobody waits: zero back-off, and the clocks' sleeps do nothing. Hooks
and loggers of the peers are off where they can be. Everything runs in an environment of its own
(`.yaoki/bench-policies`, made on the first run from `requirements/bench-policies.lock`).
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _report import Report, arguments

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".yaoki" / "bench-policies"
LOCK = ROOT / "requirements" / "bench-policies.lock"
GROUPS = ("sync happy", "sync fail>ok", "async happy", "async fail>ok")
ALL = "yaoki deadline > retry > breaker > bulkhead"
ALL_ASYNC = f"{ALL} > timeout"


# ── inside the environment: the candidates ───────────────────────────────────────────────────────────────────────────


def work(x: int) -> int:
    return x


async def awork(x: int) -> int:
    return x


def flaky() -> Callable[[int], int]:
    calls = 0

    def fn(x: int) -> int:
        nonlocal calls
        calls ^= 1
        if calls:
            raise ValueError("boom")
        return x

    return fn


def aflaky() -> Callable[[int], Any]:
    calls = 0

    async def fn(x: int) -> int:
        nonlocal calls
        calls ^= 1
        if calls:
            raise ValueError("boom")
        return x

    return fn


class Candidates:
    """By group and name: makes the callable to be timed."""

    def __init__(self) -> None:
        self.by_group: dict[str, dict[str, Callable[[], Any]]] = {group: {} for group in GROUPS}

    def sync(self, name: str, decorate: Callable[[Any], Any], *, retries: bool) -> None:
        def happy() -> Any:
            guarded = decorate(work)
            return lambda: guarded(7)

        def fails() -> Any:
            guarded = decorate(flaky())

            def twice() -> Any:
                try:
                    return guarded(7)
                except ValueError:
                    return guarded(7)

            return (lambda: guarded(7)) if retries else twice

        self.by_group["sync happy"][name] = happy
        self.by_group["sync fail>ok"][name] = fails

    def aio(self, name: str, decorate: Callable[[Any], Any], *, retries: bool) -> None:
        def happy() -> Any:
            guarded = decorate(awork)

            async def once() -> Any:
                return await guarded(7)

            return once

        def fails() -> Any:
            guarded = decorate(aflaky())

            async def once() -> Any:
                return await guarded(7)

            async def twice() -> Any:
                try:
                    return await guarded(7)
                except ValueError:
                    return await guarded(7)

            return once if retries else twice

        self.by_group["async happy"][name] = happy
        self.by_group["async fail>ok"][name] = fails

    def both(self, name: str, decorate: Callable[[Any], Any], *, retries: bool) -> None:
        self.sync(name, decorate, retries=retries)
        self.aio(name, decorate, retries=retries)


def ours(to: Candidates) -> None:
    from yaoki.policies import backoff, breaker, budget, bulkhead, deadline, pipeline, retry, timeout
    from yaoki.service import Service

    def retried() -> Any:
        # ratio 1: in fail>ok every call needs its retry, and every success pays for one.
        return retry(3, backoff.NONE, on=ValueError, budget=budget(1.0, start=10))

    def broken() -> Any:
        return breaker(failure_rate=1.0)  # half of the calls fail in fail>ok

    to.both("yaoki retry", lambda fn: retried()(fn), retries=True)
    to.both("yaoki breaker", lambda fn: broken()(fn), retries=False)
    to.both("yaoki bulkhead", lambda fn: bulkhead(64)(fn), retries=False)
    to.both("yaoki deadline", lambda fn: deadline(30)(fn), retries=False)
    to.aio("yaoki timeout", lambda fn: timeout(30)(fn), retries=False)
    to.both("yaoki retry > breaker", lambda fn: pipeline(retried(), broken())(fn), retries=True)
    to.both("yaoki retry > breaker > bulkhead", lambda fn: pipeline(retried(), broken(), bulkhead(64))(fn), retries=True)
    to.both(ALL, lambda fn: pipeline(deadline(30), retried(), broken(), bulkhead(64))(fn), retries=True)
    to.aio(ALL_ASYNC, lambda fn: pipeline(deadline(30), retried(), broken(), bulkhead(64), timeout(20))(fn), retries=True)
    to.both("yaoki Service with these", lambda fn: Service("x", policy=pipeline(
        deadline(30), retried(), broken(), bulkhead(64), timeout(20)))(fn), retries=True)


def peers(to: Candidates) -> None:
    import aiobreaker
    import backoff
    import circuitbreaker
    import interlock
    import purgatory
    import pybreaker
    import redress
    import stamina
    import tenacity
    from hyx.bulkhead import bulkhead as hyx_bulkhead
    from hyx.circuitbreaker import consecutive_breaker as hyx_breaker
    from hyx.retry import retry as hyx_retry
    from hyx.timeout import timeout as hyx_timeout

    stamina.instrumentation.set_on_retry_hooks(())
    by_tenacity = tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none(),
                                 retry=tenacity.retry_if_exception_type(ValueError), reraise=True)
    by_stamina = stamina.retry(on=ValueError, attempts=3, timeout=None, wait_initial=0, wait_max=0, wait_jitter=0)
    by_backoff = backoff.on_exception(backoff.constant, ValueError, max_tries=3, interval=0, jitter=None, logger=None)
    retry_settings = {"classifier": lambda _: redress.ErrorClass.TRANSIENT, "strategy": lambda _: 0.0, "max_attempts": 3}

    def asyncio_timeout(fn: Any) -> Any:
        async def call(*args: Any) -> Any:
            async with asyncio.timeout(30):
                return await fn(*args)

        return call

    def interlock_breaker() -> Any:
        return interlock.CircuitBreaker(name="c", config=interlock.Config(failure_rate_threshold=0.99, minimum_number_of_calls=100))

    def interlock_pipeline(fn: Any) -> Any:
        return interlock.Pipeline.builder().retry(attempts=3, wait=tenacity.wait_none()).circuit_breaker(
            interlock_breaker()).bulkhead(64).build()(fn)

    def redress_policy(fn: Any) -> Any:
        policy = redress.Policy(retry=redress.Retry(**retry_settings), circuit_breaker=redress.CircuitBreaker(failure_threshold=5))
        return lambda x: policy.call(lambda: fn(x))

    to.both("tenacity", by_tenacity, retries=True)
    to.both("stamina", by_stamina, retries=True)
    to.both("backoff", by_backoff, retries=True)
    to.both("redress retry", lambda fn: redress.retry(**retry_settings)(fn), retries=True)
    to.both("circuitbreaker", lambda fn: circuitbreaker.CircuitBreaker()(fn), retries=False)
    to.sync("pybreaker", lambda fn: pybreaker.CircuitBreaker(fail_max=5)(fn), retries=False)
    to.sync("purgatory", lambda fn: purgatory.SyncCircuitBreakerFactory()("c", threshold=5)(fn), retries=False)
    to.aio("purgatory", lambda fn: purgatory.AsyncCircuitBreakerFactory()("c", threshold=5)(fn), retries=False)
    to.both("aiobreaker", lambda fn: aiobreaker.CircuitBreaker(fail_max=5)(fn), retries=False)
    to.both("interlock breaker", lambda fn: interlock_breaker()(fn), retries=False)
    to.sync("tenacity > pybreaker", lambda fn: by_tenacity(pybreaker.CircuitBreaker(fail_max=5)(fn)), retries=True)
    to.sync("stamina > circuitbreaker", lambda fn: by_stamina(circuitbreaker.CircuitBreaker()(fn)), retries=True)
    to.sync("redress retry + breaker", redress_policy, retries=True)
    to.both("interlock retry > breaker > bulkhead", interlock_pipeline, retries=True)
    to.aio("asyncio.timeout alone", asyncio_timeout, retries=False)
    to.aio("hyx retry > breaker > timeout > bulkhead", lambda fn: hyx_retry(on=ValueError, attempts=3, backoff=0)(
        hyx_breaker(ValueError)(hyx_timeout(30)(hyx_bulkhead(64, 128)(fn)))), retries=True)
    to.aio("tenacity > aiobreaker > asyncio.timeout",
           lambda fn: by_tenacity(aiobreaker.CircuitBreaker(fail_max=5)(asyncio_timeout(fn))), retries=True)


# ── inside the environment: measuring ────────────────────────────────────────────────────────────────────────────────

cpu_ns = time.thread_time_ns


def time_sync(call: Callable[[], Any], times: int) -> float:
    began = cpu_ns()
    for _ in range(times):
        call()
    return (cpu_ns() - began) / times


async def time_async(call: Callable[[], Any], times: int) -> float:
    began = cpu_ns()
    for _ in range(times):
        await call()
    return (cpu_ns() - began) / times


def measure(rounds: int, batch_ms: float) -> dict[str, Any]:
    """`{group: {name: {ns, ratio, low, high}}}`: medians over the rounds; low and high are the 10th and 90th percentile of the ratio."""
    time.sleep = lambda _: None  # nobody waits, and the peers are given the same chance as we

    async def no_sleep(_delay: float = 0, result: Any = None) -> Any:
        return result

    asyncio.sleep = no_sleep
    candidates = Candidates()
    candidates.both("bare call", lambda fn: fn, retries=False)
    ours(candidates)
    peers(candidates)
    loop = asyncio.new_event_loop()

    def timed(group: str, call: Any, times: int) -> float:
        return loop.run_until_complete(time_async(call, times)) if group.startswith("async") else time_sync(call, times)

    async def made(make: Callable[[], Any]) -> Any:
        return make()  # some peers want a running loop when they are made

    cells = []
    for group, by_name in candidates.by_group.items():
        for name, make in by_name.items():
            call = loop.run_until_complete(made(make))
            got = loop.run_until_complete(call()) if group.startswith("async") else call()
            assert got == 7, (group, name, got)
            timed(group, call, 50)
            each_ns = max(timed(group, call, 200), 10.0)
            cells.append((group, name, call, max(20, int(batch_ms * 1e6 / each_ns)), []))
    rng = random.Random(1)
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        rng.shuffle(cells)
        for group, _name, call, times, samples in cells:
            samples.append(timed(group, call, times))
    loop.close()
    bare = {group: samples for group, name, _, _, samples in cells if name == "bare call"}
    found: dict[str, Any] = {group: {} for group in GROUPS}
    for group, name, _, _, samples in sorted(cells, key=lambda cell: statistics.median(cell[4])):
        ratios = sorted(one / base for one, base in zip(samples, bare[group], strict=True))
        found[group][name] = {"ns": round(statistics.median(samples)), "ratio": round(statistics.median(ratios), 2),
                              "low": round(ratios[len(ratios) // 10], 2), "high": round(ratios[-1 - len(ratios) // 10], 2)}
    return found


def memory_bytes() -> float:
    """Of one more pipeline with five policies, around one more function."""
    from yaoki.policies import breaker, bulkhead, deadline, pipeline, retry, timeout

    def make() -> Any:
        return pipeline(deadline(5), retry(3), breaker(), bulkhead(50), timeout(1))(work)

    make()
    gc.collect()
    tracemalloc.start()
    kept = [make() for _ in range(500)]
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return size


def versions() -> dict[str, str]:
    from importlib.metadata import distributions

    return {each.metadata["Name"]: each.version for each in distributions() if each.metadata["Name"] not in ("pip", "setuptools")}


def inside(quick: bool) -> None:
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    size = memory_bytes()
    rounds, batch_ms = (21, 2.0) if quick else (61, 8.0)
    print(json.dumps({"memory_bytes": size, "versions": versions(), "rounds": rounds, "batch_ms": batch_ms,
                      "groups": measure(rounds, batch_ms)}))


# ── outside ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def environment() -> Path:
    """Python of the peers' environment; made when its lock has changed."""
    python, stamp = HOME / "bin" / "python", HOME / ".made"
    if not stamp.exists() or stamp.read_text() != LOCK.read_text():
        venv.create(HOME, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", LOCK], check=True)
        stamp.write_text(LOCK.read_text())
    return python


def main() -> int:
    options = arguments(__doc__, inside={"action": "store_true", "help": "measure in this very environment"})
    if options.inside:
        inside(options.quick)
        return 0
    report = Report("policies", options)
    command = [environment(), __file__, "--inside", *(["--quick"] if options.quick else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=900,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": "0"})
    raw = json.loads(done.stdout.splitlines()[-1])
    groups = raw["groups"]
    for group in GROUPS:
        report.line(f"\n{group:<48}{'ns':>9}{'x bare':>9}")
        for name, cell in groups[group].items():
            report.line(f"  {name:<46}{cell['ns']:>9}{cell['ratio']:>9.1f}")
    report.line("")

    def ratio(group: str, name: str) -> float:
        return float(groups[group][name]["ratio"])

    happy, fails = ("sync happy", "sync fail>ok")
    report.claim("retry > breaker > bulkhead, sync, happy, x bare", ratio(happy, "yaoki retry > breaker > bulkhead"), at_most=25)
    report.claim("retry, sync, happy, x bare", ratio(happy, "yaoki retry"), at_most=5)
    report.claim("deadline > retry > breaker > bulkhead, sync, happy, x bare", ratio(happy, ALL), at_most=15)
    report.claim("the same and an enforced timeout, async, happy, x bare", ratio("async happy", ALL_ASYNC), at_most=12)
    report.claim("retry, sync, fail then succeed, x bare", ratio(fails, "yaoki retry"), at_most=8)
    report.claim("retry, async, fail then succeed, x bare", ratio("async fail>ok", "yaoki retry"), at_most=8)
    for peer in ("tenacity > pybreaker", "interlock retry > breaker > bulkhead"):
        report.claim(f"times cheaper than {peer}, sync, happy",
                     ratio(happy, peer) / ratio(happy, "yaoki retry > breaker" if "pybreaker" in peer else "yaoki retry > breaker > bulkhead"),
                     at_least=25)
    report.claim("times cheaper than hyx's four, async, happy",
                 ratio("async happy", "hyx retry > breaker > timeout > bulkhead") / ratio("async happy", ALL_ASYNC), at_least=10)
    report.claim("bytes of one pipeline of five policies", raw["memory_bytes"], at_most=4096)
    return report.end(raw)


if __name__ == "__main__":
    sys.exit(main())
