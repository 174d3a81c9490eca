"""Which runs a verb is about: options that filter, alike for all verbs, and a walk over all that fit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

import click

from yaoki import runtime
from yaoki.cli.frame.options import DURATION, setting, since_options
from yaoki.saga.attributes import Attributes, parse_where
from yaoki.saga.journal.port import Journal, Query
from yaoki.saga.records import ENDS, Header, RunState
from yaoki.text import did_you_mean

F = TypeVar("F", bound=Callable[..., Any])

# Words for several states at once.
GROUPS: dict[str, tuple[RunState, ...]] = {
    "unfinished": (RunState.RUNNING, RunState.UNDOING, RunState.BLOCKED),
    "ended": tuple(state for state in RunState if state in ENDS),
}

PAGE = 500


def parse_states(words: Iterable[str]) -> tuple[RunState, ...]:
    """`("running,undoing", "blocked")` as states; none means any. Raises click.BadParameter."""
    found: list[RunState] = []
    for word in (part.strip() for each in words for part in each.split(",")):
        if word in GROUPS:
            found += GROUPS[word]
        elif word in set(RunState):
            found.append(RunState(word))
        else:
            known = [*(state.value for state in RunState), *GROUPS]
            raise click.BadParameter(f"there is no state {word!r}{did_you_mean(word, known) or '; states are ' + ', '.join(known)}")
    return tuple(dict.fromkeys(found))


db_option = setting("--db", "db", metavar="URL")
state_option = click.option("--state", "states", multiple=True, metavar="STATE", callback=lambda _c, _p, words: parse_states(words),
                            help="Only these; repeat, or separate with commas. Also: unfinished, ended.")
saga_option = click.option("--saga", default="", metavar="NAME", help="Only runs of this saga.")


where_option = click.option("--where", multiple=True, metavar="NAME=VALUE", callback=lambda _c, _p, words: parse_where(words),
                            help="Only runs with this attribute; repeat for several.")
idle_option = click.option("--older-than", "idle", type=DURATION, metavar="TIME", help="Only runs whose last progress is longer ago: 1h, 3d.")


def filters(command: F) -> F:
    """`--db --state --saga --where --since --until --older-than`."""
    return db_option(state_option(saga_option(where_option(since_options(idle_option(command))))))


async def every(journal: Journal, *, states: tuple[RunState, ...] = (), saga: str = "", since: float | None = None,
                until: float | None = None, limit: int | None = None, where: Attributes = (), idle: float | None = None) -> AsyncIterator[Header]:
    """All that fit, newest first, a page at a time, so that a journal of millions needs no memory."""
    before, left = 0, limit
    idle_since = 0.0 if idle is None else runtime.unix_time() - idle
    while left is None or left > 0:
        page = await journal.search(Query(states=states, saga=saga, since=since or 0.0, until=until or 0.0, before_no=before,
                                          idle_since=idle_since, where=where,
                                          limit=PAGE if left is None else min(PAGE, left)))
        for header in page:
            yield header
        if len(page) < PAGE:
            return
        before = page[-1].no
        left = None if left is None else left - len(page)
