"""Asking before something is done to many runs, or for good."""

from __future__ import annotations

import getpass
import sys

import click

from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.output import is_terminal
from yaoki.errors import UsageError


def user_name() -> str:
    """Who asks; "" in a container whose user has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def confirm(question: str, *, yes: bool) -> None:
    """Go on, or end the command with exit code 4. Where nobody can answer (a script, `--json`), only `--yes` goes on."""
    from yaoki.cli.frame.output import output

    if yes:
        return
    if output().json or not is_terminal(sys.stdin):
        raise UsageError(f"nobody is there to answer: {question}", do="add --yes, if you are sure", exit_code=Exit.REFUSED)
    if not click.confirm(question, err=True):
        raise UsageError("answered with no: nothing was done", do="narrow it down with its filters", exit_code=Exit.REFUSED)
