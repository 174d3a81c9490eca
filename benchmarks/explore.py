"""How fast the explorer is: a 4-step saga with fake services, the travel agency with its real ones, memory, and the zoo.

CPU seconds of this thread, the best of several rounds, so that neighbours on the machine count as little as they can.

    python benchmarks/explore.py --quick --json
    python benchmarks/explore.py --million        memory over 1 000 000 executions (ten minutes or more)
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "tests")]

from _report import Report, arguments  # noqa: E402

from simulation import sagas, zoo_table  # noqa: E402
from yaoki.explore import explore  # noqa: E402
from yaoki.explore.seal import sealed  # noqa: E402
from yaoki.explore.tidy import tidy  # noqa: E402


def rate(scenario: Any, executions: int, rounds: int) -> float:
    """Executions without faults per CPU second."""
    best = 0.0
    with sealed(), tidy() as collect:
        for _ in range(20):
            scenario.execute()
        for _ in range(rounds):
            began = time.thread_time()
            for _ in range(executions):
                scenario.execute()
                collect()
            best = max(best, executions / (time.thread_time() - began))
    return best


def explored(make: Any, faults: int, rounds: int, **settings: Any) -> tuple[float, Any]:
    """CPU seconds of one exploration (the best round), and its report."""
    best, report = float("inf"), None
    for _ in range(rounds):
        began = time.thread_time()
        report = explore(make(), faults=faults, **settings)
        best = min(best, time.thread_time() - began)
        assert report.ok, report.text()
    return best, report


def saga_speed(out: Report, *, quick: bool) -> dict[str, Any]:
    rounds = 3 if quick else 7
    explored(sagas.chain, 1, 1)  # warm
    singles_s, singles = explored(sagas.chain, 1, rounds)
    pairs_s, pairs = explored(sagas.chain, 2, 1 if quick else 3)
    _, full = explored(sagas.chain, 2, 1, reduce=False)
    # Many short rounds: on a machine with neighbours some of them are left alone.
    clean = rate(sagas.chain(), 50, 24 * rounds)
    out.claim("4-step saga, all single faults, CPU seconds", singles_s, at_most=0.5)
    out.claim("4-step saga, all pairs, CPU seconds", pairs_s, at_most=10)
    out.claim("4-step saga, executions per CPU second", clean, at_least=3000)
    return {"singles": singles.executions, "pairs": pairs.executions, "pairs_unreduced": full.executions, "pruned": dict(pairs.pruned),
            "executions_per_s_without_faults": round(clean), "executions_per_s_singles": round(singles.executions / singles_s),
            "executions_per_s_pairs": round(pairs.executions / pairs_s)}


def travel_speed(out: Report, *, quick: bool) -> dict[str, Any]:
    import httpx  # noqa: F401  so that the seal finds it

    from yaoki.examples.travel.exploring import scenario

    agency = scenario()
    per_s = rate(agency, 20, 30 if quick else 60)
    out.claim("travel agency with its real ASGI services, executions per CPU second", per_s, at_least=300)
    singles_s, singles = explored(scenario, 1, 1)
    return {"executions_per_s": round(per_s), "singles": singles.executions, "executions_per_s_singles": round(singles.executions / singles_s)}


def memory(out: Report, executions: int) -> dict[str, Any]:
    """Resident memory after a tenth of the executions and after all."""
    scenario = sagas.sides()
    sizes = []
    with sealed(), tidy() as collect:
        for number in range(executions):
            scenario.execute()
            collect()
            if number in {executions // 10, executions - 1}:
                sizes.append(resident_mb())
    out.claim(f"memory that {executions:,} executions add, MB", sizes[1] - sizes[0], at_most=5)
    return {"executions": executions, "after_a_tenth_mb": sizes[0], "after_all_mb": sizes[1], "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


def zoo(out: Report, *, quick: bool) -> list[dict[str, Any]]:
    """Detection rate and false alarms over the seeded defects."""
    rows = [zoo_table.row(name, twin_executions=150 if quick else None) for name in zoo_table.NAMES]
    found = sum(each.expected in each.found for each in rows)
    for each in rows:
        out.line(f"  {each.name:28} {each.expected:22} depth {each.depth}, {each.needed:5} executions; twin {each.twin:5}, alarms: {each.false_alarms or 'none'}")
    out.claim("seeded defects found by name, share", found / len(rows), at_least=1)
    out.claim("corrected twins with a false alarm", sum(bool(each.false_alarms) for each in rows), at_most=0)
    return [each._asdict() for each in rows]


def main() -> int:
    options = arguments(__doc__, million={"action": "store_true", "help": "measure memory over 1 000 000 executions"})
    out = Report("explore", options)
    raw = {"saga": saga_speed(out, quick=options.quick), "travel": travel_speed(out, quick=options.quick),
           "memory": memory(out, 1_000_000 if options.million else 5_000 if options.quick else 100_000),
           "zoo": zoo(out, quick=options.quick)}
    return out.end(raw)


if __name__ == "__main__":
    sys.exit(main())
