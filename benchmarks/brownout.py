"""A service browns out for 15 s: how many seconds after it are its callers served again, by what their clients do about failures?

800 calls/s on a server of 1 000/s that drops to 300/s; callers wait 1 s; the same load from ever more clients. The library's
own objects decide (retry decider, budget, circuit, throttle, shedder), on virtual time; the peers' rules are written down
in tests/simulation/brownout.py. 325 stands for "not within 325 s".
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from _report import Report, arguments

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from simulation.brownout import BEGINS_S, LASTS_S, PLANS, World

HORIZON_S = BEGINS_S + LASTS_S + 335
NEVER_S = 325.0
CLIENTS = (10, 1_000, 10_000, 100_000)

# (row, clients, at least, at most): what the table says, with room for the luck of one seed.
CLAIMS: tuple[tuple[str, int, float | None, float | None], ...] = (
    ("no retry", 10, None, 45), ("no retry", 100_000, None, 45),
    ("3 retries, full jitter", 10, NEVER_S, None), ("3 retries, full jitter", 100_000, NEVER_S, None),
    ("10 % budget, starts empty", 10, None, 50), ("10 % budget, starts empty", 1_000, None, 75),
    ("10 % budget, starts empty", 100_000, None, 45),
    ("10 % budget, starts nearly empty (ours)", 10, None, 50), ("10 % budget, starts nearly empty (ours)", 1_000, None, 75),
    ("ours with fade=30, after a day without a failure", 10, None, 50),
    ("ours with fade=30, after a day without a failure", 1_000, None, 75),
    ("ours with fade=30, after a day without a failure", 10_000, None, 75),
    ("ours with fade=30, after a day without a failure", 100_000, None, 75),
    ("10 % budget, bucket starts full", 100_000, NEVER_S, None),
    ("botocore's quota", 100_000, NEVER_S, None), ("a floor of 10 retries/s per client", 1_000, NEVER_S, None),
    ("breaker per client", 10, None, 45), ("breaker per client", 100_000, NEVER_S, None),
    ("3 retries and a server queue bounded at 0.5 s", 100_000, None, 3),
    ("3 retries and our load shedding", 10, None, 5), ("3 retries and our load shedding", 100_000, None, 5),
)


def main() -> int:
    options = arguments(__doc__)
    report = Report("brownout", options)
    load = 0.05 if options.quick else 0.25  # of calls, capacity and clients alike: the seconds stay what they are
    report.line(f"{'seconds until the callers are served again':<50}" + "".join(f"{count:>9,}" for count in CLIENTS) + "  clients")
    table: dict[str, list[float]] = {}
    detail: dict[str, Any] = {"load": load, "seed": 1, "horizon_s": HORIZON_S, "sent_per_call": {}}
    for name, plan in PLANS.items():
        row, sent = [], []
        for clients in CLIENTS:
            world = World(plan, max(1, int(clients * load)), load=load, horizon_s=HORIZON_S)
            back = world.run()
            row.append(NEVER_S if back is None else min(back, NEVER_S))
            sent.append(round(world.sent / (800 * load * HORIZON_S), 3))
        table[name], detail["sent_per_call"][name] = row, sent
        report.line(f"{name:<50}" + "".join(f"{'never' if back >= NEVER_S else format(back, '.0f'):>9}" for back in row))
    # A smaller load is fewer calls in each second, and its luck is larger: the bars are for the full run.
    slack = 1.7 if options.quick else 1.0
    for name, clients, least, most in CLAIMS:
        if options.quick and name == "3 retries and our load shedding":
            continue  # one worker of 100 requests/s refuses a tenth now and then, brown-out or not
        value = table[name][CLIENTS.index(clients)]
        report.claim(f"{name}, {clients:,} clients (s)", value, at_least=least, at_most=None if most is None else most * slack)
    return report.end({"seconds": table, **detail})


if __name__ == "__main__":
    sys.exit(main())
