"""Resume a saga, a queue or a run that was paused."""

from __future__ import annotations

import click

from yaoki.cli.frame import Exit
from yaoki.cli.pause import change, kind_argument, names_argument
from yaoki.cli.runs.asking import who_option, why_option
from yaoki.cli.runs.choosing import db_option


@click.command(epilog="\b\nExamples:\n  yk resume saga book-trip\n  yk resume queue mail --why 'the provider is back'")
@kind_argument
@names_argument
@who_option
@why_option
@db_option
def command(*, kind: str, names: tuple[str, ...], who: str, why: str, db: str) -> Exit:
    """Resume sagas, queues or runs that were paused: what was held back begins at once.

    Resuming a saga also releases its brake, if nearly all of its runs had to be undone.
    """
    from yaoki.cli.frame.journal import wait_for

    return wait_for(change(db, kind, names, who=who, why=why, pauses=False))
