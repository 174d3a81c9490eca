"""Look at runs, and decide about those that wait for a person."""

from __future__ import annotations

import click

from yaoki.cli.runs.answering import signal
from yaoki.cli.runs.cancelling import cancel
from yaoki.cli.runs.ending import beat, complete, fail
from yaoki.cli.runs.forking import fork
from yaoki.cli.runs.keeping import export, purge
from yaoki.cli.runs.listing import list_
from yaoki.cli.runs.pausing import pause, resume
from yaoki.cli.runs.resolving import resolve
from yaoki.cli.runs.retrying import retry
from yaoki.cli.runs.showing import show
from yaoki.cli.runs.undoing import undo


@click.group()
def command() -> None:
    """Look at runs, and decide about those that wait for a person.

    All of these work beside a running engine, and without one: what you decide is written into the journal, and carried
    out by the engine at once, or by the next one that starts. An id may be shortened as long as only one run begins so.
    """


for verb in (list_, show, signal, complete, fail, beat, retry, resolve, cancel, undo, fork, pause, resume, export, purge):
    command.add_command(verb)
