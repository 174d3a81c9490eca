"""The demo: a thousand trips booked while everything fails, and an audit of what is left.

    python -m yaoki.examples.travel --trips 1000 --faults 0.2 --kills 3 --seed 7

    starts the services ──▶ books, with faults, killing the orchestrator ──▶ stops the faults ──▶ lets the rest end ──▶ audits

`run` is all of it as one function; it returns the exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
import json as jsons
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TextIO

from yaoki.errors import ConfigError, YaokiError
from yaoki.examples.travel.demo.play import Outcome, Plan, Play
from yaoki.examples.travel.demo.report import table, to_dict
from yaoki.examples.travel.demo.show import Show

OK, FINDING, USAGE, INTERRUPTED = 0, 1, 2, 130


def run(*, trips: int = 1000, faults: float = 0.2, kills: int = 3, seed: int | None = None, json: bool = False,
        folder: Path | None = None, port: int = 0, limit: float = 900.0, choreographed: bool = False, broker: str = "") -> int:
    """Run the demo and print what came of it.

    Args:
        trips: how many to book. faults: share of requests to fail, in [0, 1].
        kills: how often the orchestrator is killed with -9; or one of the participants, or their broker.
        seed: of everything that is drawn; a new one if left out. Timing is not seeded: a seed draws the same kinds of trouble,
            not the same run.
        json: print one JSON object, and nothing else, on standard output.
        folder: where the databases go, and stay; a temporary folder if left out, kept only when the audit finds something.
        port: the first of six ports for the services; free ones if left out.
        limit: seconds after which it gives up.
        choreographed: nobody is in charge: the services' desks take part over a broker that delivers twice, mixes the trips'
            words and loses confirmations; the desks are killed instead of an orchestrator.
        broker: of these: "" for a file, `nats` or `nats://` for a server of its own, which is killed as well, or an address.

    Returns:
        0: every trip ended, and the audit found nothing. 1: it found something. 2: it could not start. 130: interrupted.
    """
    chosen = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    notes = sys.stderr if json else sys.stdout
    where: Path | None = None
    keep = folder is not None
    try:
        where = _prepared(folder)
        plan = Plan(trips=trips, faults=faults, kills=kills, seed=chosen, folder=where, port=port, limit_s=limit,
                    choreographed=choreographed)
        outcome = asyncio.run(_played(plan, notes, broker if choreographed else None))
        keep = keep or not outcome.report.clean
    except YaokiError as error:
        print(jsons.dumps({"error": error.to_dict()}) if json else f"{error.code}  {error}\n  do this: {error.do}\n  see:     yk help {error.code}",
              file=sys.stderr)
        keep = keep or (where is not None and (where / "trips.db").exists())  # something to look into
        return USAGE
    except BrokenPipeError:  # nobody reads on: `yk demo | head`
        _silence(notes)
        return INTERRUPTED
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("yaoki demo: interrupted; every process it started has ended", file=sys.stderr)
        return INTERRUPTED
    finally:
        if where is not None and not keep:
            shutil.rmtree(where, ignore_errors=True)
    try:
        print(table(outcome), file=notes)
        if keep:
            print(f"\nThe databases and the journal are in {plan.folder}", file=notes)
        if json:
            print(jsons.dumps(to_dict(outcome)), flush=True)
    except BrokenPipeError:
        _silence(notes)
    return OK if outcome.report.clean else FINDING


def _silence(notes: TextIO) -> None:
    """Keep Python from complaining at its end that what is left could not be written."""
    for stream in {notes, sys.stdout}:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


async def _played(plan: Plan, notes: TextIO, broker: str | None) -> Outcome:
    """broker: None for the orchestrated form."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: then nobody signals us
            loop.add_signal_handler(number, lambda: task.cancel() if task else None)
    with Show(plan, notes) as show:
        if broker is None:
            return await Play(plan, show.update).run()
        from yaoki.examples.travel.demo.without_orchestrator import LeaderlessPlay  # noqa: PLC0415  loads the messages
        from yaoki.messages import open_broker  # noqa: PLC0415

        if broker not in {"", "nats", "nats://"}:  # one that is there already, or is not: say so before anything is started
            await (await open_broker(broker)).close()
        return await LeaderlessPlay(plan, show.update, broker=broker).run()


def _prepared(folder: Path | None) -> Path:
    """An empty folder that can be written to."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="yaoki-demo-"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty, and the demo begins with nothing", do="name another folder, or empty it")
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be used: {error.strerror}", do="name a folder that you may write to with --dir") from error
    return folder.absolute()


__all__ = ["Plan", "run"]
