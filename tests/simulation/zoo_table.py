"""The zoo of seeded defects: explores each program and its corrected twin, and prints what was found.

    python -m simulation.zoo_table          (with tests/ on the path)
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

from yaoki.explore import explore
from yaoki.explore.report import Report

HERE = Path(__file__).parent / "zoo"
NAMES = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "__init__")


class Row(NamedTuple):
    name: str
    defect: str
    expected: str
    found: str
    depth: int
    needed: int
    twin: int
    false_alarms: str


def module(name: str) -> Any:
    return importlib.import_module(f"simulation.zoo.{name}")


def broken(name: str, depth: int) -> Report:
    return explore(module(name).program(fixed=False), faults=depth)


def twin(name: str, depth: int, most: int | None = None) -> Report:
    return explore(module(name).program(fixed=True), faults=depth, most=most)


def row(name: str, twin_executions: int | None = None) -> Row:
    """Explore one program to the depth at which its defect shows, and its twin to depth 2."""
    program = module(name)
    for depth in (0, 1, 2):
        report = broken(name, depth)
        signatures = {invariant for signature in report.signatures for invariant in signature}
        if program.BREAKS in signatures:
            break
    clean = twin(name, 2, twin_executions)
    alarms = ", ".join(sorted({invariant for signature in clean.signatures for invariant in signature}))
    return Row(name, program.__doc__.splitlines()[0], program.BREAKS, ", ".join(sorted(signatures)) or "nothing", depth, report.executions,
               clean.executions, alarms or ("" if clean.ok else "not clean"))


def main() -> int:
    wrong = 0
    for name in sys.argv[1:] or NAMES:
        each = row(name)
        good = each.expected in each.found and not each.false_alarms
        wrong += not good
        print(f"{'ok  ' if good else 'BAD '} {name:28} {each.expected:22} depth {each.depth}  {each.needed:5} executions; twin {each.twin:6}  "
              f"{'' if good else f'found {each.found}; twin: {each.false_alarms}'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
