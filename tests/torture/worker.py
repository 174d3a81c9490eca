"""One tortured worker: `python worker.py URL NAME FOLDER CLOCK_OFFSET [--broken-fence]`. Ends when it is told to, or killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaoki
from torture.errands import clockwork, errands
from torture.sagas import Service, TicketOffice, trips
from yaoki import events, runtime
from yaoki.runtime import RealRuntime
from yaoki.saga.journal.postgres import statements


class WrongClock(RealRuntime):
    """Hours off: nothing that decides may look at it."""

    def __init__(self, offset_s: float) -> None:
        super().__init__()
        self.unix_time = lambda: time.time() + offset_s


def break_fence() -> None:
    """Let the dead write: the condition that refuses them is taken out, everywhere."""
    for name in ("BATCH_FENCE", "CLAIM", "CLAIM_ONE", "RELEASE"):
        sql: str = getattr(statements, name)
        broken = sql.replace("AND state IN ('alive', 'draining') RETURNING no", "RETURNING no", 1)
        assert broken != sql
        setattr(statements, name, broken)


def tell_tasks() -> None:
    """Where every task stands, for whoever wonders why a run does not go on."""
    for task in asyncio.all_tasks():
        task.print_stack(limit=4, file=sys.stderr)
    sys.stderr.flush()


async def main(url: str, name: str, folder: Path, offset_s: float) -> None:
    runtime.install(WrongClock(offset_s))
    log = os.open(folder / f"events-{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(event: Any) -> None:
        os.write(log, events.to_json(event) + b"\n")

    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell_tasks)
    with events.listen(note, kinds=(events.WorkerEvent, events.RunBlocked)):
        service = Service(folder)
        sagas = [trips(service, TicketOffice(folder)), errands(service), clockwork()]
        async with yaoki.open(url, sagas=sagas, concurrency=64, grace=2.0, name=name):
            await told.wait()


if __name__ == "__main__":
    if "--broken-fence" in sys.argv:
        break_fence()
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])))
