"""The demo while it runs: a live panel on a terminal, a line every two seconds elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from yaoki.examples.travel.demo.play import Plan, Progress
from yaoki.examples.travel.faults import count

if TYPE_CHECKING:
    from rich.live import Live

LINE_EVERY_S = 2.0
BAR_WIDTH = 44
STYLES = (("completed", "green"), ("undone", "yellow"), ("blocked", "red"))


class Show:
    """Shows progress on `out` for as long as its block lasts."""

    def __init__(self, plan: Plan, out: TextIO) -> None:
        self._plan = plan
        self._out = out
        self._live: Live | None = None
        self._line_at = 0.0
        self._phase = ""

    def __enter__(self) -> Self:
        plan = self._plan
        if self._out.isatty():
            from rich.console import Console  # noqa: PLC0415  only who draws pays for it
            from rich.live import Live  # noqa: PLC0415

            self._live = Live(console=Console(file=self._out), refresh_per_second=8)
            self._live.__enter__()
        else:
            victims = "participants are" if plan.choreographed else "the orchestrator is"
            print(f"{plan.trips} trips, {plan.faults:.0%} of all requests fail, {victims} killed {plan.kills} times, seed {plan.seed}",
                  file=self._out, flush=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def update(self, progress: Progress) -> None:
        """Show this; on a terminal at once, elsewhere when the phase changes or some time has passed."""
        now = time.monotonic()
        if self._live is not None:
            progress.faults = count(self._plan.folder)
            self._live.update(self._panel(progress))
        elif progress.phase != self._phase or now - self._line_at >= LINE_EVERY_S:
            self._phase, self._line_at = progress.phase, now
            print(self._line(progress), file=self._out, flush=True)

    def _line(self, progress: Progress) -> str:
        ended = ", ".join(f"{progress.ended[name]} {name}" for name, _ in STYLES if progress.ended[name] or name != "blocked")
        victims = "participants" if self._plan.choreographed else "orchestrators"
        return (f"{progress.seconds:6.1f} s  {progress.phase}: {ended}, {progress.under_way} under way; killed: "
                f"{victims} {progress.kills.total()}, services {progress.service_kills.total()}")

    def _panel(self, progress: Progress) -> Any:
        from rich.panel import Panel  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415

        grid = Table.grid(padding=(0, 2))
        grid.add_row("trips", self._bar(progress))
        for name, style in STYLES:
            grid.add_row(f"[{style}]  {name}[/]", f"[{style}]{progress.ended[name]:>6}[/]")
        grid.add_row("faults", _counted(progress.faults))
        grid.add_row("kill -9", _counted(progress.service_kills + progress.kills))
        return Panel(grid, title="Yaoki: fall seven times, rise eight", subtitle=f"{progress.phase} · {progress.seconds:.0f} s · seed {self._plan.seed}")

    def _bar(self, progress: Progress) -> Any:
        from rich.text import Text  # noqa: PLC0415

        bar = Text()
        for name, style in STYLES:
            bar.append("█" * round(BAR_WIDTH * progress.ended[name] / self._plan.trips), style=style)
        bar.append("░" * max(0, BAR_WIDTH - len(bar)), style="dim")
        bar.append(f"  {progress.ended.total() / max(progress.seconds, 0.1):.0f} a second")
        return bar


def _counted(times: Counter[str]) -> str:
    each = " · ".join(f"{kind} {count}" for kind, count in sorted(times.items()) if count)
    return f"{times.total():>6}  [dim]{each}[/]"
