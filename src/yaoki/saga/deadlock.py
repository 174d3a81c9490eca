"""Runs that wait for each other in a circle, by keys and by children: none of them will ever go on, and somebody has to be told.

    trip-1 ──awaits its child──▶ trip-1/hotel ──waits for the key room/7, held by──▶ trip-1

Keys alone make no circle, for all runs claim them in one order (`locking.py`). But a run also waits for the runs that it has started,
and those claim keys of their own. Each circle is closed by a claim, for a run that was just started waits for nothing yet; so it is
enough that whoever begins to wait for a key looks whether all that it waits for, and what that waits for, leads back to itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from yaoki.saga.family import parent_of
from yaoki.saga.graph import Graph
from yaoki.saga.journal.locks import Claim
from yaoki.saga.records import RunState

if TYPE_CHECKING:
    from yaoki.saga.journal.port import Journal

# So many runs are looked at. A longer circle is not found, and is seen by its runs' making no progress.
FURTHEST = 100


class Wait(msgspec.Struct, frozen=True):
    """`run`, or `below` it one that it awaits, waits for a key that `of` has, or will have first."""

    run: str
    below: str
    key: str
    of: str


async def circle(journal: Journal, run: str, key: str) -> tuple[Wait, ...]:
    """The waits that lead from this run, which waits for this key, back to itself; empty: there is no such circle."""
    ways: list[tuple[str, tuple[Wait, ...]]] = [(run, ())]
    seen = {run}
    while ways and len(seen) < FURTHEST:
        who, way = ways.pop(0)
        claims = await journal.claims(who, family=bool(way))
        for wait in waits_of(claims, who):
            if not way and wait.key != key:
                continue
            if is_of(run, wait.of) and await _stands(journal, (*way, wait), run):
                return (*way, wait)
            if wait.of not in seen:
                seen.add(wait.of)
                ways.append((wait.of, (*way, wait)))
    return ()


def waits_of(claims: Sequence[Claim], run: str) -> Iterator[Wait]:
    """What this run, and those that it has started, wait for. claims: by key, first come first."""
    for place, claim in enumerate(claims):
        if not claim.holds and is_of(claim.run, run):
            for ahead in reversed(claims[:place]):
                if ahead.key != claim.key:
                    break
                yield Wait(run, claim.run, claim.key, ahead.run)


def is_of(run: str, other: str) -> bool:
    """Is it the other one, or one that the other has started?"""
    return run == other or run.startswith(f"{other}/")


async def _stands(journal: Journal, found: tuple[Wait, ...], run: str) -> bool:
    """Is each child in this circle awaited by its parent? One that was started and left keeps nobody waiting."""
    for child, top in [*((wait.below, wait.run) for wait in found), (run, found[-1].of)]:
        if not await _is_awaited(journal, child, top):
            return False
    return True


async def _is_awaited(journal: Journal, child: str, top: str) -> bool:
    while child != top:
        parent, step = parent_of(child) or ("", "")
        found = await journal.headers([parent])
        data = await journal.load_graph(found[0].graph) if found and found[0].state is RunState.RUNNING else None
        graph = Graph.from_json(data) if data is not None else None
        if graph is None or step not in graph.index or graph.nodes[graph.index[step]].waits != "child":
            return False
        child = parent
    return True


def told(found: tuple[Wait, ...]) -> str:
    """What a person has to know of a circle, and can do about it."""
    waits = [f"{wait.below} waits for the key {_shown(wait.key)}, which {wait.of} has" + _and_awaits(wait.of, after)
             for wait, after in zip(found, [*(wait.below for wait in found[1:]), found[0].run], strict=True)]
    return (f"none of these will ever go on: {'; '.join(waits)}. Cancel one of them (yk runs cancel {found[-1].of}), then have this step "
            "tried again (yk runs resolve RUN STEP retry); and do not let a run claim a key that the run it was started by has claimed")


def _and_awaits(run: str, child: str) -> str:
    return f", and {run} awaits {child}" if child != run else ""


def _shown(key: str) -> str:
    return "/".join(str(part) for part in msgspec.json.decode(key))
