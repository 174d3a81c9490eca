"""Which runs a verb is about: options that filter, alike for all verbs, and a walk over all that fit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

import click

from yaoki.cli.frame.options import setting, since_options
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


def filters(command: F) -> F:
    """`--db --state --saga --since --until`."""
    return db_option(state_option(saga_option(since_options(command))))


async def every(journal: Journal, *, states: tuple[RunState, ...] = (), saga: str = "", since: float | None = None,
                until: float | None = None, limit: int | None = None) -> AsyncIterator[Header]:
    """All that fit, newest first, a page at a time, so that a journal of millions needs no memory."""
    before, left = 0, limit
    while left is None or left > 0:
        page = await journal.search(Query(states=states, saga=saga, since=since or 0.0, until=until or 0.0, before_no=before,
                                          limit=PAGE if left is None else min(PAGE, left)))
        for header in page:
            yield header
        if len(page) < PAGE:
            return
        before = page[-1].no
        left = None if left is None else left - len(page)
