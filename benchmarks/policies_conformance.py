"""The rows of our conformance table, put to the peers as well: what happens, not what it costs.

    python benchmarks/policies_conformance.py [--json] [--quick] [--save]

Each row is a small program against one library, with its defaults where they do not matter. A dash: the library has no such
part. The claims are ours; the peers' answers are in `raw`, and in `docs/explanation/conformance.md`. Runs in the
environment of `benchmarks/policies.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from _report import Report, arguments
from policies import HOME, ROOT, environment

Row = Callable[[], str]
ROWS = ("a cancelled call is not retried", "a cap of 0.2 s bounds the call, slow attempts included", "clients that sleep exactly the cap, 10th attempt",
        "of 50 calls at the half-open moment, run", "80 % failures, every fifth call succeeds: opens", "4 threads inside one breaker at once",
        "a lost probe's place comes back", "3 layers of 3 attempts on a dead service: calls")


# ── row by row; each takes adapters, one a library ───────────────────────────────────────────────────────────────────


def cancelled_is_not_retried(decorate: Callable[[Any], Any]) -> str:
    calls = 0

    async def hang() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(30)

    async def main() -> None:
        task = asyncio.ensure_future(decorate(hang)())
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait((task,), timeout=0.3)
        task.cancel()
        await asyncio.wait((task,), timeout=0.3)

    asyncio.run(main())
    return "yes" if calls == 1 else f"no, {calls} calls"


def cap_bounds(decorate: Callable[[Any], Any]) -> str:
    async def slow() -> None:
        await asyncio.sleep(0.15)
        raise ConnectionRefusedError

    async def main() -> float:
        began = time.monotonic()
        try:
            await decorate(slow)()
        except Exception:
            pass
        return time.monotonic() - began

    took = min(asyncio.run(main()) for _ in range(3))  # what else runs on the machine only ever adds
    return "yes" if took < 0.23 else f"no, {took:.2f} s"


def at_the_cap(delays: Callable[[], list[float]], cap: float) -> str:
    drawn = delays()
    return f"{sum(abs(each - cap) < 1e-9 for each in drawn) / len(drawn):.0%}"


class Breaker:
    """What a breaker is asked: `call(fn)`; `open_s`: how long it stays open at most."""

    def __init__(self, call: Callable[[Callable[[], Any]], Any], open_s: float = 0.1) -> None:
        self.call, self.open_s = call, open_s

    def try_(self, fn: Callable[[], Any]) -> bool:
        try:
            self.call(fn)
        except Exception:
            return False
        return True


def boom() -> None:
    raise ConnectionRefusedError


def half_open_calls(made: Breaker) -> str:
    for _ in range(12):
        made.try_(boom)
    time.sleep(made.open_s * 1.3)
    inside = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside
        with lock:
            inside += 1
        time.sleep(0.3)

    threads = [threading.Thread(target=made.try_, args=(work,)) for _ in range(50)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    seen = inside
    for thread in threads:
        thread.join(30)
    return str(seen) if inside == seen else f"{seen} at once, {inside} in turn"


def mostly_failing_opens(made: Breaker) -> str:
    for number in range(100):
        ran = False

        def work(fails: bool = number % 5 != 0) -> None:
            nonlocal ran
            ran = True
            if fails:
                raise ConnectionRefusedError

        made.try_(work)
        if not ran:
            return f"yes, after {number} calls"
    return "no"


def four_threads(made: Breaker) -> str:
    together = threading.Barrier(4)

    def work() -> None:
        together.wait(timeout=1.0)

    threads = [threading.Thread(target=made.try_, args=(work,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return "no, one at a time" if together.broken else "yes"


def lost_probe(made: Breaker) -> str:
    for _ in range(12):
        made.try_(boom)
    time.sleep(made.open_s * 1.3)

    def interrupted() -> None:
        raise KeyboardInterrupt

    try:
        made.call(interrupted)
    except BaseException:
        pass
    time.sleep(made.open_s * 1.3)
    return "yes" if made.try_(lambda: None) else "no"


# ── the same for breakers of async functions: `decorate(fn)`, 50 tasks on one loop ────────────────────────────────────

OPEN_S = 0.1
Decorate = Callable[[Any], Any]


async def _aio_try(guarded: Callable[[Any], Any], fn: Any) -> bool:
    try:
        await guarded(fn)
    except Exception:
        return False
    return True


async def _aio_boom() -> None:
    raise ConnectionRefusedError


def _through(decorate: Decorate) -> Callable[[Any], Any]:
    """One breaker, through which any async function can be called."""
    async def run(fn: Any) -> Any:
        return await fn()

    return decorate(run)


def aio_half_open_calls(decorate: Decorate) -> str:
    async def main() -> str:
        guarded = _through(decorate)
        for _ in range(12):
            await _aio_try(guarded, _aio_boom)
        await asyncio.sleep(OPEN_S * 1.3)
        inside = 0

        async def work() -> None:
            nonlocal inside
            inside += 1
            await asyncio.sleep(0.3)

        tasks = [asyncio.ensure_future(_aio_try(guarded, work)) for _ in range(50)]
        await asyncio.sleep(0.2)
        seen = inside
        await asyncio.wait(tasks, timeout=30)
        return str(seen) if inside == seen else f"{seen} at once, {inside} in turn"

    return asyncio.run(main())


def aio_mostly_failing_opens(decorate: Decorate) -> str:
    async def main() -> str:
        guarded = _through(decorate)
        for number in range(100):
            ran = False

            async def work(fails: bool = number % 5 != 0) -> None:
                nonlocal ran
                ran = True
                if fails:
                    raise ConnectionRefusedError

            await _aio_try(guarded, work)
            if not ran:
                return f"yes, after {number} calls"
        return "no"

    return asyncio.run(main())


def aio_lost_probe(decorate: Decorate) -> str:
    async def main() -> str:
        guarded = _through(decorate)
        for _ in range(12):
            await _aio_try(guarded, _aio_boom)
        await asyncio.sleep(OPEN_S * 1.3)

        async def hang() -> None:
            await asyncio.sleep(30)

        probe = asyncio.ensure_future(_aio_try(guarded, hang))
        await asyncio.sleep(0.02)
        probe.cancel()
        await asyncio.wait((probe,), timeout=1)
        await asyncio.sleep(OPEN_S * 1.3)

        async def well() -> None: ...

        return "yes" if await _aio_try(guarded, well) else "no"

    return asyncio.run(main())


def aio_breaker_rows(make: Callable[[], Decorate]) -> dict[str, Row]:
    return {ROWS[3]: lambda: aio_half_open_calls(make()), ROWS[4]: lambda: aio_mostly_failing_opens(make()),
            ROWS[6]: lambda: aio_lost_probe(make())}


def layers(decorate: Callable[[Any], Any]) -> str:
    calls = 0

    def dead() -> None:
        nonlocal calls
        calls += 1
        raise ConnectionRefusedError

    inner = decorate(dead)
    middle = decorate(lambda: inner())
    outer = decorate(lambda: middle())
    try:
        outer()
    except Exception:
        pass
    return str(calls)


# ── the libraries ────────────────────────────────────────────────────────────────────────────────────────────────────


def ours() -> dict[str, Row]:
    from random import Random

    from yaoki.policies import backoff, breaker, deadline, pipeline, retry

    def made() -> Breaker:
        guard = breaker(minimum=5, open_for=0.1)
        return Breaker(guard.call)

    schedule = backoff.exponential(0.1, cap=5.0)
    rng = Random(1)
    return {
        ROWS[0]: lambda: cancelled_is_not_retried(retry(3, backoff.NONE, idempotent=True)),
        ROWS[1]: lambda: cap_bounds(pipeline(deadline(0.2), retry(5, backoff.fixed(0.02)))),
        ROWS[2]: lambda: at_the_cap(lambda: [schedule.delay(9, 0.0, rng) for _ in range(5000)], 5.0),
        ROWS[3]: lambda: half_open_calls(made()), ROWS[4]: lambda: mostly_failing_opens(made()), ROWS[5]: lambda: four_threads(made()),
        ROWS[6]: lambda: lost_probe(made()), ROWS[7]: lambda: layers(retry(3, backoff.NONE)),
    }


def by_tenacity() -> dict[str, Row]:
    import tenacity

    def guard(**more: Any) -> Any:
        return tenacity.retry(**{"stop": tenacity.stop_after_attempt(3), "wait": tenacity.wait_none(), "reraise": True, **more})

    wait = tenacity.wait_exponential_jitter(initial=0.1, max=5.0)
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = 9
    return {ROWS[0]: lambda: cancelled_is_not_retried(guard()),
            ROWS[1]: lambda: cap_bounds(guard(stop=tenacity.stop_after_delay(0.2), wait=tenacity.wait_fixed(0.02))),
            ROWS[2]: lambda: at_the_cap(lambda: [wait(state) for _ in range(5000)], 5.0), ROWS[7]: lambda: layers(guard())}


def by_stamina() -> dict[str, Row]:
    import stamina
    from stamina import _core

    def guard(**more: Any) -> Any:
        return stamina.retry(**{"on": OSError, "attempts": 3, "timeout": None, "wait_initial": 0, "wait_max": 0, "wait_jitter": 0, **more})

    def delays() -> list[float]:
        return [_core._compute_backoff(9, 5.0, 0.1, 2, 1.0) for _ in range(5000)]

    return {ROWS[0]: lambda: cancelled_is_not_retried(guard()),
            ROWS[1]: lambda: cap_bounds(guard(attempts=5, timeout=0.2, wait_initial=0.02, wait_max=0.02)),
            **({ROWS[2]: lambda: at_the_cap(delays, 5.0)} if hasattr(_core, "_compute_backoff") else {}), ROWS[7]: lambda: layers(guard())}


def by_backoff() -> dict[str, Row]:
    import backoff

    def guard(**more: Any) -> Any:
        return backoff.on_exception(backoff.constant, OSError, **{"max_tries": 3, "interval": 0, "jitter": None, "logger": None, **more})

    return {ROWS[0]: lambda: cancelled_is_not_retried(guard()), ROWS[1]: lambda: cap_bounds(guard(max_tries=5, max_time=0.2, interval=0.02)),
            ROWS[7]: lambda: layers(guard())}


def breaker_rows(make: Callable[[], Breaker]) -> dict[str, Row]:
    return {ROWS[3]: lambda: half_open_calls(make()), ROWS[4]: lambda: mostly_failing_opens(make()), ROWS[5]: lambda: four_threads(make()),
            ROWS[6]: lambda: lost_probe(make())}


def by_pybreaker() -> dict[str, Row]:
    import pybreaker

    return breaker_rows(lambda: Breaker(pybreaker.CircuitBreaker(fail_max=5, reset_timeout=0.1).call))


def by_circuitbreaker() -> dict[str, Row]:
    import circuitbreaker

    def make() -> Breaker:
        guard = circuitbreaker.CircuitBreaker(failure_threshold=5, recovery_timeout=1)  # whole seconds
        return Breaker(lambda fn: guard(fn)(), 1.0)

    return breaker_rows(make)


def by_purgatory() -> dict[str, Row]:
    import purgatory

    def make() -> Breaker:
        guard = purgatory.SyncCircuitBreakerFactory()("c", threshold=5, ttl=0.1)
        return Breaker(lambda fn: guard(fn)())

    return breaker_rows(make)


def by_interlock() -> dict[str, Row]:
    import interlock

    def make() -> Breaker:
        guard = interlock.CircuitBreaker(name="c", config=interlock.Config(minimum_number_of_calls=5, wait_duration_in_open=0.1))
        return Breaker(lambda fn: guard(fn)())

    return breaker_rows(make)


def by_aiobreaker() -> dict[str, Row]:
    from datetime import timedelta

    import aiobreaker

    def make() -> Any:
        return aiobreaker.CircuitBreaker(fail_max=5, timeout_duration=timedelta(seconds=OPEN_S))

    return {**aio_breaker_rows(make), ROWS[5]: lambda: four_threads(Breaker(make().call))}


def by_hyx() -> dict[str, Row]:
    from hyx.circuitbreaker import consecutive_breaker
    from hyx.retry import retry
    from hyx.timeout import timeout

    return {ROWS[0]: lambda: cancelled_is_not_retried(retry(on=OSError, attempts=3, backoff=0)),
            ROWS[1]: lambda: cap_bounds(lambda fn: timeout(0.2)(retry(on=OSError, attempts=5, backoff=0.02)(fn))),
            **aio_breaker_rows(lambda: consecutive_breaker(OSError, failure_threshold=5, recovery_time_secs=OPEN_S, recovery_threshold=1))}


def by_redress() -> dict[str, Row]:
    import redress

    retrying = {"classifier": lambda _: redress.ErrorClass.TRANSIENT, "strategy": lambda _: 0.0, "max_attempts": 3}

    def make() -> Breaker:
        circuit = redress.CircuitBreaker(failure_threshold=5, recovery_timeout_s=0.1, trip_on={redress.ErrorClass.TRANSIENT})
        policy = redress.Policy(retry=redress.Retry(**{**retrying, "max_attempts": 1}), circuit_breaker=circuit)
        return Breaker(lambda fn: policy.call(fn))

    return {ROWS[0]: lambda: cancelled_is_not_retried(redress.retry(**retrying)),
            ROWS[1]: lambda: cap_bounds(redress.retry(**{**retrying, "max_attempts": 5, "deadline_s": 0.2})),
            **breaker_rows(make), ROWS[7]: lambda: layers(redress.retry(**retrying))}


LIBRARIES: dict[str, Callable[[], dict[str, Row]]] = {
    "yaoki": ours, "tenacity": by_tenacity, "stamina": by_stamina, "backoff": by_backoff, "pybreaker": by_pybreaker,
    "circuitbreaker": by_circuitbreaker, "purgatory": by_purgatory, "interlock-cb": by_interlock,
    "aiobreaker": by_aiobreaker, "hyx": by_hyx, "redress": by_redress,
}


def inside() -> None:
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    found: dict[str, dict[str, str]] = {}
    for library, make in LIBRARIES.items():
        found[library] = {}
        for row, run in make().items():
            try:
                found[library][row] = run()
            except Exception as error:
                found[library][row] = f"? {type(error).__name__}: {error}"[:80]
    print(json.dumps(found))


def main() -> int:
    options = arguments(__doc__, inside={"action": "store_true", "help": "run in this very environment"})
    if options.inside:
        inside()
        return 0
    report = Report("policies_conformance", options)
    done = subprocess.run([environment(), __file__, "--inside"], check=True, stdout=subprocess.PIPE, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    found = json.loads(done.stdout.splitlines()[-1])
    report.line("| | " + " | ".join(LIBRARIES) + " |\n|" + " --- |" * (len(LIBRARIES) + 1))
    for row in ROWS:
        report.line(f"| {row} | " + " | ".join(found[library].get(row, "–") for library in LIBRARIES) + " |")
    report.line("")
    wanted = ("yes", "yes", "0%", "1", "yes, after ", "yes", "yes", "3")
    right = sum(found["yaoki"].get(row, "").startswith(answer) for row, answer in zip(ROWS, wanted, strict=True))
    report.claim("rows that we answer as we should", right, at_least=len(ROWS))
    return report.end(found)


if __name__ == "__main__":
    assert HOME
    sys.exit(main())
