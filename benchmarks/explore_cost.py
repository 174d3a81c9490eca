"""What one execution of the explorer spends its time on, stage by stage: a 4-step saga with fake services, without faults.

The quickest twentieth of many executions, so that neighbours on the machine count as little as they can. No bar: what must hold is
in `explore.py`; this says where to look when it does not.

    python benchmarks/explore_cost.py --quick
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent)]

from _report import Report, arguments  # noqa: E402

from yaoki.explore import Booking, FakeService, Scenario, World, scenarios  # noqa: E402
from yaoki.explore.sagas import open_app  # noqa: E402
from yaoki.explore.seal import sealed  # noqa: E402
from yaoki.explore.tidy import take_apart, tidy  # noqa: E402
from yaoki.saga.define import Saga  # noqa: E402

CLOCK = [time.perf_counter]  # in a list, so that the seal, which makes every clock virtual, does not find it
STAGES = {
    "main": "a universe: loop, world, main process", "app": "an app: journal, engine", "opened": "open it", "started": "start a run: durable, and a driver",
    "step": "decide, and begin the first step", "booked": "calls of services: request, effect, reply", "next": "records of steps: a commit, and what is next",
    "ended": "the last record and the end of the run, told to who waits", "closed": "close the app", "judge": "the program ends, and its outcome is read",
    "end": "judge it: every invariant", "apart": "close what it left", "gone": "take it apart",
}


class Marks:
    """When each stage of the execution under way was over."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, float]] = []

    def __call__(self, stage: str) -> None:
        self.taken.append((stage, CLOCK[0]()))

    def spent(self) -> dict[str, float]:
        """Microseconds of each stage."""
        found = dict.fromkeys(STAGES, 0.0)
        for (_, began), (stage, ended) in zip(self.taken, self.taken[1:], strict=False):
            found[stage] += (ended - began) * 1e6
        return found


def observed(mark: Marks) -> Scenario:
    """The saga that is measured, with a mark at each stage."""
    saga = Saga("chain", input=str)
    names = ("hotel", "flight", "points", "payment")
    for number, name in enumerate(names):
        do, undo = _of(FakeService(name), mark, "next" if number else "step")
        saga.step(name=name, after=names[number - 1:number])(do).undo(undo)

    async def main(world: World) -> None:
        mark("main")
        app = open_app(world, saga)
        mark("app")
        async with app:
            mark("opened")
            run = await app.start(saga, "ann", id="run-1")
            mark("started")
            await run.wait()
            mark("ended")
        mark("closed")

    return Scenario(main)


def _of(service: FakeService, mark: Marks, begins: str) -> tuple[Any, Any]:
    """The do and the undo of a step that books at `service`."""

    async def do(who: str) -> Booking:
        mark(begins)
        booking = await service.book()
        mark("booked")
        return booking

    async def undo(who: str) -> None:
        await service.cancel()

    return do, undo


def watch_the_end(mark: Marks) -> None:
    """Mark also what the explorer does itself, after the program."""
    judge, end = Scenario._judge, World.end

    def judged(self: Scenario, *args: Any) -> None:
        mark("judge")
        judge(self, *args)
        mark("end")

    def ended(self: World) -> None:
        end(self)
        mark("apart")

    def taken_apart(world: World) -> None:
        take_apart(world)
        mark("gone")

    Scenario._judge, World.end, scenarios.take_apart = judged, ended, taken_apart  # type: ignore[method-assign,assignment]


def main() -> int:
    options = arguments(__doc__)
    out = Report("explore_cost", options)
    mark = Marks()
    scenario = observed(mark)
    watch_the_end(mark)
    seen: dict[str, list[float]] = {stage: [] for stage in STAGES}
    with sealed(), tidy() as collect:
        for _ in range(3_000 if options.quick else 30_000):
            mark.taken.clear()
            mark("")
            scenario.execute()
            for stage, spent_us in mark.spent().items():
                seen[stage].append(spent_us)
            collect()
    quick = {stage: sorted(each)[len(each) // 20] for stage, each in seen.items()}
    whole = sum(quick.values())
    for stage, says in STAGES.items():
        out.line(f"  {quick[stage]:6.1f} us  {100 * quick[stage] / whole:3.0f} %  {says}")
    out.line(f"  {whole:6.1f} us in all")
    return out.end({"us": {stage: round(spent, 1) for stage, spent in quick.items()}, "us_in_all": round(whole, 1)})


if __name__ == "__main__":
    sys.exit(main())
