"""Look into a ledger: its keys, their histories, its sealed epochs."""

from __future__ import annotations

import click

from yaoki.cli.ledger.keeping import deliver, erase, prune
from yaoki.cli.ledger.looking import epochs, history, keys, schemas


@click.group()
def command() -> None:
    """Look into a ledger: its keys, their histories, its sealed epochs."""


for verb in (keys, history, epochs, schemas, erase, deliver, prune):
    command.add_command(verb)
