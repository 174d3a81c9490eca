"""`complete`, `fail`, `beat`: what the world outside says of a step, by the token that the step gave out."""

from __future__ import annotations

from typing import Any

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.options import DURATION
from yaoki.cli.runs.choosing import db_option

token_argument = click.argument("token")
wait_option = click.option("--wait", "wait_s", type=DURATION, default=2.0, show_default="2s",
                           help="How long to wait until the run has recorded it.")


@click.command()
@token_argument
@click.argument("result", default="null", metavar="[JSON]")
@wait_option
@db_option
def complete(*, token: str, result: str, wait_s: float, db: str) -> Exit:
    r"""End a step with its result, by its token. The same again is harmless; another result is refused.

    \b
    Example:
      yk runs complete yk1.WyJ0cmlw... '{"ticket": "T-1"}'
    """
    import msgspec

    from yaoki.errors import InputError

    try:
        data = msgspec.json.encode(msgspec.json.decode(result))
    except msgspec.DecodeError as error:
        raise InputError(f"the result is not JSON: {error}", do="quote it for the shell: '{\"ticket\": \"T-1\"}'") from error
    return _end(db, token, wait_s, result=data)


@click.command()
@token_argument
@click.argument("message")
@click.option("--in-doubt", is_flag=True, help="Nobody knows whether it was done; otherwise it certainly was not.")
@wait_option
@db_option
def fail(*, token: str, message: str, in_doubt: bool, wait_s: float, db: str) -> Exit:
    """Say that a step failed, by its token: before the pivot the run undoes itself, after it a person decides."""
    from yaoki.saga.records import Failure

    return _end(db, token, wait_s, error=Failure("Failed", message, in_doubt=in_doubt))


@click.command()
@token_argument
@click.argument("detail", default="null", metavar="[JSON]")
@db_option
def beat(*, token: str, detail: str, db: str) -> None:
    """Say that a step is still under way, and how far, by its token."""
    import msgspec

    from yaoki.cli.frame.journal import observed, wait_for
    from yaoki.errors import InputError
    from yaoki.saga.outside.completing import beat as tell

    try:
        value = msgspec.json.decode(detail)
    except msgspec.DecodeError as error:
        raise InputError(f"the detail is not JSON: {error}", do="quote it for the shell: '{\"row\": 5000}'") from error

    async def say() -> None:
        async with observed(db) as journal:
            await tell(journal, token, value)

    wait_for(say())
    output().emit({"beat": True})
    output().say("noted")


def _end(db: str, token: str, wait_s: float, **how: Any) -> Exit:
    from yaoki.cli.frame.journal import observed, wait_for
    from yaoki.saga.outside.completing import end

    async def say() -> bool:
        async with observed(db) as journal:
            return await end(journal, token, wait_s=wait_s, **how)

    recorded = wait_for(say())
    out = output()
    out.emit({"recorded": recorded})
    out.say("recorded" if recorded else "stored; the next program that runs this saga records it")
    return Exit.OK
