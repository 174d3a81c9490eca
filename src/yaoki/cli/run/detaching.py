"""`yk run --detach`: only start the runs, as many as there are lines, and leave them to whoever works on the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yaoki import runtime
from yaoki.cli.frame import Exit, Output
from yaoki.cli.frame.options import unless_default
from yaoki.text import grouped, without_password

if TYPE_CHECKING:
    from yaoki.cli.run.inputs import Lines
    from yaoki.saga.define import Saga


async def detached(out: Output, saga: Saga[Any], db: str, lines: Lines, placing: dict[str, Any]) -> Exit:
    """Start a run for each line; returns once all are durable."""
    from yaoki.app import open as open_app

    began = runtime.monotonic()
    async with open_app(db, sagas=[saga], work=False) as app:
        fresh = await app.start_many(saga, ((each.id, each.value) for each in lines), **placing)
        shared = app.journal.shared
    seconds = runtime.monotonic() - began
    told = (lines.total or 0) - lines.repeated if lines.total is not None else fresh
    out.emit({"saga": saga.name, "db": without_password(db), "started": fresh, "bad_lines": lines.bad_count, "repeated_lines": lines.repeated,
              "seconds": round(seconds, 3)})
    out.say(f"{grouped(fresh)} runs of {saga.name} started in {seconds:.1f} s" + (f"; {grouped(told - fresh)} were there already" if told > fresh else ""))
    if not shared:
        out.remark(f"they begin when somebody works on this journal: yk run MODULE:SAGA{unless_default(db)}")
    return Exit.FINDING if lines.bad_count else Exit.OK
