"""All single message faults of the choreographed trip, and all pairs of them, in parts that can be had one by one.

    python benchmarks/explore_choreographed.py --state FOLDER --part 1/2      goes on where the last one was, also after a kill
    python benchmarks/explore_choreographed.py --state FOLDER --save          sums the parts

A part is what `yk explore yaoki.examples.travel.exploring_choreographed --kind msg --faults 2 --part I/N --resume FILE` does. What is not
finished is said to be so. `--kinds msg,crash.after_effect,call.lost_ack` adds power cuts and lost answers: three times as many pairs, in a
folder of their own.
"""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx  # noqa: F401  the client must be imported before the universe is closed
import msgspec
from _report import ROOT, Report, arguments

from yaoki.examples.travel.exploring_choreographed import scenario
from yaoki.explore import explore
from yaoki.explore.report import NOTHING_THERE
from yaoki.explore.search import Explorer


def cpu_s() -> float:
    """Of this process and of the copies of it that have ended."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def one_part(folder: Path, part: tuple[int, int], kinds: Sequence[str]) -> None:
    """Go on with a part until it is done."""
    kept, used = folder / f"part-{part[0]}-of-{part[1]}.json", folder / f"part-{part[0]}-of-{part[1]}.cpu"
    if kept.exists() and is_done(kept):
        return
    before = float(used.read_text()) if used.exists() else 0.0

    def tell(_report: Any = None) -> None:
        used.write_text(f"{before + cpu_s():.1f}")

    folder.mkdir(parents=True, exist_ok=True)
    report = explore(scenario(), faults=2, kinds=kinds, part=part, resume=kept, progress=tell)
    tell()
    print(report.text(matrix=False))


def is_done(kept: Path) -> bool:
    return bool(report_of(kept)["exhausted"])


def report_of(kept: Path) -> dict[str, Any]:
    return msgspec.json.decode(kept.read_bytes())["report"]  # type: ignore[no-any-return]


def summed(folder: Path, kinds: Sequence[str]) -> dict[str, Any]:
    """Of all parts, as far as they are."""
    files = sorted(folder.glob("part-*-of-*.json"))
    parts = {name.stem: report_of(name) for name in files}
    wanted = {int(name.rpartition("-of-")[2]) for name in parts}
    if len(wanted) != 1:
        sys.exit(f"{folder} holds parts of {sorted(wanted) or 'nothing'}: one division is needed")
    by_depth, pruned = Counter[str](), Counter[str]()
    for report in parts.values():
        by_depth.update({depth: count for depth, count in report["by_depth"].items() if depth == "2"})
        pruned.update(report["pruned"])
    first = parts.get(f"part-1-of-{next(iter(wanted))}", {})
    return {
        "command": f"{Path(__file__).name} --state FOLDER --kinds {','.join(kinds)} --part I/{next(iter(wanted))}", "points_without_faults": first.get("points"),
        "singles": first.get("by_depth", {}).get("1"), "pairs": by_depth["2"], "can_do_nothing_there": pruned.pop(NOTHING_THERE, 0), "left_out": dict(pruned),
        "violations": sum(report["violations"] for report in parts.values()), "parts": {name: bool(report["exhausted"]) for name, report in parts.items()},
        "finished": len(parts) == next(iter(wanted)) and all(report["exhausted"] for report in parts.values()),
        "cpu_s": round(sum(float(name.with_suffix(".cpu").read_text()) for name in files)),
    }


def main() -> int:
    options = arguments(__doc__, state={"type": Path, "default": ROOT / ".yaoki" / "explored", "help": "where the parts keep how far they came"},
                        part={"default": "", "help": "I/N: go on with this one"},
                        kinds={"default": "msg", "help": "families or ids of faults"})
    kinds = options.kinds.split(",")
    if options.quick:
        report = Explorer(scenario(), depth=1, kinds=kinds, share=(0, 20)).run()
        raw = {"violations": report.found, "executions": report.executions, "finished": False}
    else:
        if options.part:
            number, _, of = options.part.partition("/")
            one_part(options.state, (int(number), int(of)), kinds)
        raw = summed(options.state, kinds)
        if options.part and not raw["finished"]:
            print(f"{raw['pairs']} pairs so far: the other parts are to be done", file=sys.stderr)
    said = Report("explore_choreographed", options)
    said.claim("choreographed trip: executions with one or two message faults that break an invariant", raw["violations"], at_most=0)
    return said.end(raw)


if __name__ == "__main__":
    sys.exit(main())
