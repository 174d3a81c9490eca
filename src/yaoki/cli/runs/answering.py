"""`signal`: answer what a run waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from yaoki.cli.frame import Exit, output
from yaoki.cli.runs.asking import Asked, ask_one, run_argument, who_option
from yaoki.cli.runs.choosing import db_option
from yaoki.errors import InputError, UsageError

if TYPE_CHECKING:
    from yaoki.cli.runs.story import Story


@click.command()
@run_argument
@click.argument("name")
@click.argument("answer", default="null", metavar="[JSON]")
@who_option
@db_option
def signal(*, run: str, name: str, answer: str, who: str, db: str) -> Exit:
    r"""Answer what a run waits for, or will wait for: the first answer counts.

    \b
    Example:
      yk runs signal order-42 approval '{"approved": true}'
    """
    try:
        value = msgspec.json.decode(answer)
    except msgspec.DecodeError as error:
        raise InputError(f"the answer is not JSON: {error}", do="quote it for the shell: '{\"approved\": true}'") from error

    def decide(story: Story) -> list[Asked]:
        header = story.stored.header
        if header.state.is_end:
            raise UsageError(f"run {header.id} has ended: it is {header.state}", do="`yk runs show` says how", run_id=header.id)
        if story.machine is not None:
            waits = [node.name for node in story.machine.graph.nodes if node.waits == "signal"]
            if name not in waits:
                raise UsageError(f"{header.saga} has no step {name!r} that waits for an answer",
                                 do=f"name one of: {', '.join(waits)}" if waits else "this saga waits for none", run_id=header.id)
        return [(header.id, "signal", {"name": name, "answer": value, "who": who})]

    return ask_one(output(), db, run, decide)
