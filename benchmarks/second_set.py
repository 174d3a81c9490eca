"""What hedge, rate limit, throttle, adaptive limit, cache and failover cost a call that needs none of them; and a million keys.

    python benchmarks/second_set.py [--json] [--quick] [--save]

Thread CPU time on one pinned core, small batches, all candidates once a round beside the round's own bare call. The claims
take the first decile of the rounds, because what else runs on the machine only ever adds; the medians stand beside it.
Nobody waits and nothing is refused: this is the price of having them on.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from _report import Report, arguments

from yaoki.policies import adaptive_limit, cache, failover, hedge, rate_limit, throttle
from yaoki.policies.gcra import KeyedGcra, Rate
from yaoki.policies.gradient import Gradient2

BATCH = 2000


def work(x: int) -> int:
    return x


async def awork(x: int) -> int:
    return x


def policies() -> dict[str, Any]:
    return {
        "rate_limit": rate_limit(1e9, burst=1e9),
        "rate_limit(key)": rate_limit(1e9, burst=1e9, key=lambda x: x),
        "throttle": throttle(),
        "adaptive_limit": adaptive_limit(Gradient2(maximum=200)),
        "cache hit": cache(ttl=3600, early=0),
        "failover(3)": failover(["a", "b", "c"]),
    }


def sync_round(candidates: dict[str, Callable[[int], int]]) -> dict[str, float]:
    took = {}
    for name, fn in candidates.items():
        began = time.thread_time_ns()
        for _ in range(BATCH):
            fn(7)
        took[name] = (time.thread_time_ns() - began) / BATCH
    return took


async def async_round(candidates: dict[str, Callable[[int], Any]]) -> dict[str, float]:
    took = {}
    for name, fn in candidates.items():
        began = time.thread_time_ns()
        for _ in range(BATCH):
            await fn(7)
        took[name] = (time.thread_time_ns() - began) / BATCH
        await asyncio.sleep(0)
    return took


def over_bare(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Cost in ns over the bare call of the same round (first decile and median), and as a ratio to it (both)."""
    found = {}
    for name in rounds[0]:
        over = [took[name] - took["bare"] for took in rounds]
        ratios = [took[name] / took["bare"] for took in rounds]
        found[name] = {"ns": round(statistics.quantiles(over, n=10)[0], 1), "ns_median": round(statistics.median(over), 1),
                       "ratio": round(statistics.quantiles(ratios, n=10)[0], 2), "ratio_median": round(statistics.median(ratios), 2)}
    return found


def million_keys(count: int) -> dict[str, float]:
    """Memory of a limiter with so many keys, its longest pause, and what is left when they are idle."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    keyed: KeyedGcra[int] = KeyedGcra(Rate(1.0, 1.0), max_keys=3 * count + 3)
    for key in range(count):
        keyed.reserve(key, 0.5)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    gc.disable()
    grown: KeyedGcra[int] = KeyedGcra(Rate(1.0, 1.0), max_keys=3 * count + 3)
    growing_ns = 0
    for key in range(count):
        began = time.thread_time_ns()
        grown.reserve(key, 0.5)
        growing_ns = max(growing_ns, time.thread_time_ns() - began)
    longest_ns = 0
    for call in range(count + count // 10):
        began = time.thread_time_ns()
        keyed.reserve(-1 - call % 3, 10.0 + 2.0 * call)
        longest_ns = max(longest_ns, time.thread_time_ns() - began)
    gc.enable()
    return {"keys": count, "bytes_per_key": round(held / count, 1), "longest_pause_ms": round(longest_ns / 1e6, 3),
            "longest_pause_growing_ms": round(growing_ns / 1e6, 3), "left_when_idle": len(keyed)}


def main() -> int:
    options = arguments(__doc__)
    report = Report("second_set", options)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rounds = 40 if options.quick else 200
    plain = {"bare": work, **{name: policy(work) for name, policy in policies().items()}}
    timed = {"bare": awork, **{name: policy(awork) for name, policy in policies().items()},
             "hedge(0.05)": hedge(0.05, idempotent=True)(awork), "hedge(quantile)": hedge(quantile=0.99, idempotent=True)(awork)}

    async def coroutines() -> list[dict[str, float]]:
        return [await async_round(timed) for _ in range(rounds)]

    sync_round(plain)
    sync = over_bare([sync_round(plain) for _ in range(rounds)])
    aio = over_bare(asyncio.run(coroutines())[1:])
    for colour, table in (("sync", sync), ("async", aio)):
        for name, found in table.items():
            report.line(f"{colour:<6}{name:<18}{found['ns']:>8.0f} ns over bare (median {found['ns_median']:>6.0f})"
                        f"{found['ratio']:>8.1f} x bare (median {found['ratio_median']:.1f})")
    keys = million_keys(100_000 if options.quick else 1_000_000)
    report.line(f"keyed limiter: {keys}")
    report.claim("an unneeded hedge, fixed delay (us over a bare call)", aio["hedge(0.05)"]["ns"] / 1000, at_most=2.0)
    report.claim("an unneeded hedge, quantile (us over a bare call)", aio["hedge(quantile)"]["ns"] / 1000, at_most=3.0)
    for name, bar in (("rate_limit", 25), ("throttle", 30), ("adaptive_limit", 35), ("cache hit", 25)):
        report.claim(f"{name}, sync (x bare)", sync[name]["ratio"], at_most=bar)
    report.claim("keyed limiter, bytes a key", keys["bytes_per_key"], at_most=150)
    report.claim("keyed limiter, longest pause while a million idle keys are given up (ms)", keys["longest_pause_ms"], at_most=20)
    report.claim("keyed limiter, keys left when idle", keys["left_when_idle"], at_most=10)
    return report.end({"sync": sync, "async": aio, "keys": keys})


if __name__ == "__main__":
    sys.exit(main())
