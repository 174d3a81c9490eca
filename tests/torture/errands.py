"""Runs that share places, keys and a clock, and what must hold of them whatever fails.

    errand     from a queue that lets few be under way at once and few begin in a second, with a desk that one holds until its end:
               enter (a row) → ask (the service) → leave (a row)
    clockwork  started by a schedule each second, by whichever worker: tick (a row)

The rows are written in the steps' own transactions, with the server's clock: what a zombie wrote was never committed.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from datetime import datetime
from random import Random
from typing import Any

import asyncpg
import msgspec

from torture.compound import PATIENT
from torture.service import Done, Service, Trip
from yaoki import Effect, Queue, Saga

COUNTER = Queue("counter", concurrency=3, rate="60/s")
DESKS = 6

TABLES = """
CREATE TABLE public.visit (run text, desk text, what text, fence int, at float8 DEFAULT extract(epoch FROM clock_timestamp()));
CREATE TABLE public.tick (run text);
"""


class Errand(Trip):
    desk: str = ""


def errands(service: Service) -> Saga[Errand]:
    saga = Saga("errands", input=Errand, brake=None, queue=COUNTER, lock=lambda errand: ("desk", errand.desk))

    async def visit(tx: Any, errand: Errand, what: str, effect: Effect) -> Done:
        await tx.execute("INSERT INTO public.visit VALUES ($1, $2, $3, $4)", effect.run, errand.desk, what, effect.fence)
        return Done(effect.fence, 0)

    @saga.step(tx=True, undo=None, retry=PATIENT)
    async def enter(errand: Errand, effect: Effect, tx: Any) -> Done:
        return await visit(tx, errand, "enter", effect)

    @saga.step(retry=PATIENT)
    async def ask(errand: Errand, enter: Done, effect: Effect) -> Done:
        return await service.call(effect, errand)

    @ask.undo
    async def take_back(errand: Errand, ask: Done | None, effect: Effect) -> None:
        await service.call(effect, errand)

    @saga.step(tx=True, undo=None, retry=PATIENT)
    async def leave(errand: Errand, ask: Done, effect: Effect, tx: Any) -> Done:
        return await visit(tx, errand, "leave", effect)

    return saga


def clockwork() -> Saga[int]:
    saga = Saga("clockwork", input=int, brake=None)

    @saga.step(tx=True, undo=None, retry=PATIENT)
    async def tick(n: int, effect: Effect, tx: Any) -> int:
        await tx.execute("INSERT INTO public.tick VALUES ($1)", effect.run)
        return n

    saga.schedule("tick", every=1.0, input=1, overlap="allow")
    return saga


def inputs(number: int, rng: Random) -> dict[str, bytes]:
    """So many errands, by id; one in six is refused by the service."""
    return {f"errand-{n:06d}": msgspec.json.encode(Errand("ask" if rng.random() < 1 / 6 else "", 0.08, desk=str(n % DESKS))) for n in range(number)}


async def wrong_with_errands(connection: asyncpg.Connection[Any], runs: list[Any], made: dict[str, dict[str, set[str]]],
                             cancelled: set[str]) -> list[str]:
    """runs: rows of the journal. made: by run, and by step, what was done: do, undo. cancelled: those that somebody asked to cancel."""
    visits: dict[str, dict[str, Any]] = defaultdict(dict)
    wrong = []
    for row in await connection.fetch("SELECT run, desk, what, fence, at FROM public.visit ORDER BY at"):
        if row["what"] in visits[row["run"]]:
            wrong.append(f"run {row['run']} did {row['what']} twice: it is one transaction with its record")
        visits[row["run"]][row["what"]] = row
    ended = [run for run in runs if run["saga"] == "errands"]
    for run in ended:
        name, state, fails = run["id"], run["state"], msgspec.json.decode(run["input"], type=Errand).fails
        allowed = {"undone" if fails else "completed", *(["cancelled"] if name in cancelled else [])}
        if state not in allowed:
            wrong.append(f"run {name} is {state}, not {' or '.join(sorted(allowed))}: {run['reason']}")
        if state == "completed" and set(visits[name]) != {"enter", "leave"}:
            wrong.append(f"run {name} completed, and its visit is {sorted(visits[name])}")
        if (made[name]["ask"] == {"do"}) != (state == "completed"):
            wrong.append(f"run {name} is {state}, and what it asked is {sorted(made[name]['ask'])}")
    whole = {name: (rows["enter"], rows["leave"]) for name, rows in visits.items() if len(rows) == 2}
    return wrong + _two_at_a_desk(whole) + _too_many_at_once(whole)


def _two_at_a_desk(whole: dict[str, tuple[Any, Any]]) -> list[str]:
    """Whoever has a desk has it until its end, whichever worker drives it."""
    wrong = []
    by_desk: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for name, (enter, leave) in whole.items():
        by_desk[enter["desk"]].append((enter["at"], leave["at"], name))
    for desk, held in by_desk.items():
        held.sort()
        wrong += [f"run {second[2]} came to desk {desk} while run {first[2]} had it"
                  for first, second in itertools.pairwise(held) if second[0] < first[1]]
    return wrong


def _too_many_at_once(whole: dict[str, tuple[Any, Any]]) -> list[str]:
    """One that changed hands in between had no place for a while, and is not counted."""
    assert COUNTER.concurrency is not None
    moments = sorted((at, change) for enter, leave in whole.values() if enter["fence"] == leave["fence"]
                     for at, change in ((enter["at"], 1), (leave["at"], -1)))
    inside = most = 0
    for _, change in moments:
        inside += change
        most = max(most, inside)
    return [f"{most} errands were under way at once, of {COUNTER.concurrency}"] if most > COUNTER.concurrency else []


async def wrong_with_clockwork(connection: asyncpg.Connection[Any], runs: list[Any]) -> list[str]:
    """Each second has its run from the first one to the last, and each that has ended ticked once."""
    fired = [run for run in runs if run["saga"] == "clockwork"]
    ticks = Counter(row["run"] for row in await connection.fetch("SELECT run FROM public.tick"))
    wrong = [f"run {run['id']} is {run['state']}, and ticked {ticks[run['id']]} times" for run in fired
             if ticks[run["id"]] != (run["state"] == "completed")]
    seconds = sorted(round(instant_of(run["id"])) for run in fired)
    if not seconds or seconds != list(range(seconds[0], seconds[-1] + 1)):
        wrong.append(f"the schedule missed some of its seconds: {[b - a for a, b in itertools.pairwise(seconds)]}")
    return wrong


def instant_of(run: str) -> float:
    """`tick@2026-11-22T01:02:03Z`, or a number."""
    text = run.partition("@")[2]
    return float(text) if text.replace(".", "").isdigit() else datetime.fromisoformat(text).timestamp()
