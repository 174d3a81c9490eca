"""`python -m yaoki.examples.travel`: the demo (`yk demo` is the same)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from yaoki.examples.travel.demo import run


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yaoki.examples.travel", description="Book trips while everything fails.")
    parser.add_argument("--trips", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--faults", type=float, default=0.2, help="share of requests that fail (0.2)")
    parser.add_argument("--kills", type=int, default=3, help="how often the orchestrator is killed with -9 (3)")
    parser.add_argument("--seed", type=int, help="of everything that is drawn; a new one if left out")
    parser.add_argument("--dir", type=Path, help="an empty folder for the databases; a temporary one if left out")
    parser.add_argument("--port", type=int, default=0, help="first of six ports; free ones if left out")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds after which it gives up (900)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    given = parser.parse_args(words)
    return run(trips=given.trips, faults=given.faults, kills=given.kills, seed=given.seed, json=given.json, folder=given.dir,
               port=given.port, limit=given.limit)


if __name__ == "__main__":
    sys.exit(main())
