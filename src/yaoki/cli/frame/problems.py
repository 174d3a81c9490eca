"""An error as a person, or a program, reads it: its code, what happened, why, and what to do now.

    YK-3001  trips.db is in use by process 4711
      why:     Two processes driving the same runs would repeat each other's steps.
      do this: stop that process, or let it run your sagas; to look on, use `yk runs`
      see:     yk help YK-3001

Nobody is shown a traceback for a mistake of his own, unless he asks for it with YAOKI_DEBUG=1. One that is ours is shown,
because a report needs it.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Any

import click

from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.output import to_json, wants_color
from yaoki.errors import (
    ConfigError,
    JournalError,
    LedgerError,
    MessagesError,
    RunConflictError,
    RunNotFoundError,
    UsageError,
    YaokiError,
)

# What could not even begin. Other errors of ours tell how something went that did.
COULD_NOT_BEGIN = (UsageError, JournalError, MessagesError, LedgerError, RunNotFoundError, RunConflictError)

_DISK = {
    errno.ENOSPC: "free some space and start again: what was acknowledged is safe",
    errno.EDQUOT: "free some space within your quota and start again: what was acknowledged is safe",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.ENOENT: "check the path",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "check the path",
    errno.EADDRINUSE: "end the program that uses the port, or choose another one with --port",
}


# Which of our extras brings a module that only some commands need.
EXTRAS = {"asyncpg": "postgres", "psycopg": "postgres", "redis": "redis", "nats": "nats", "boto3": "aws", "botocore": "aws", "aiobotocore": "aws",
          "ministack": "history", "numpy": "audit", "grpc": "grpc", "requests": "http", "aiohttp": "http", "sqlalchemy": "sql"}


def report(error: BaseException, *, as_json: bool) -> Exit:
    """Say on stderr what went wrong, and return how the command ends."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        _print({"interrupted": True}, "\ninterrupted", as_json=as_json)
        return Exit.INTERRUPTED
    known = as_ours(error)
    if os.environ.get("YAOKI_DEBUG"):
        traceback.print_exception(error)
    if known is None:
        return _report_bug(error, as_json=as_json)
    _print({"error": known.to_dict() | {"why": known.why}}, as_text(known), as_json=as_json)
    return exit_of(known)


def exit_of(error: YaokiError) -> Exit:
    """An error may say itself how the command ends: `RefusedError(..., exit_code=Exit.REFUSED)`."""
    own = getattr(error, "exit_code", None)
    if own is not None:
        return Exit(own)
    return Exit.USAGE if isinstance(error, COULD_NOT_BEGIN) else Exit.FINDING


def as_ours(error: BaseException) -> YaokiError | None:
    """The error as one of Yaoki's, or None for a bug."""
    if isinstance(error, YaokiError):
        return error
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "yk"
        return UsageError(_in_our_words(error.format_message()), do=f"{path} --help  shows what it takes")
    if isinstance(error, click.ClickException):
        return UsageError(error.format_message(), do="check the path")
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").partition(".")[0])):
        return ConfigError(f"this needs {error.name}, which is not installed", do=f"pip install 'yaoki[{extra}]'")
    if isinstance(error, OSError) and error.errno in _DISK:
        where = f"{error.filename}: " if error.filename else ""
        return UsageError(f"{where}{(error.strerror or str(error)).lower()}", do=_DISK[error.errno])
    return None


def _in_our_words(message: str) -> str:
    """The sentence of click as we would say it: types by their names in English, choices on one line."""
    for theirs, ours in ((" integer range", " whole number"), (" float range", " number"), ("a valid ", "a "), (". Choose from:", ": one of")):
        message = message.replace(theirs, ours)
    return " ".join(message.split()).rstrip(".")


def as_text(error: YaokiError) -> str:
    lines = [f"{click.style(error.code, fg='red', bold=True)}  {click.style(str(error), bold=True)}"]
    parts = [("why:", error.why), ("do this:", error.do), *(("note:", note) for note in getattr(error, "__notes__", ())),
             ("see:", f"yk help {error.code}")]
    lines += [f"  {click.style(f'{name:<8}', dim=True)} {_indented(text)}" for name, text in parts if text]
    return "\n".join(lines)


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 11)


def _report_bug(error: BaseException, *, as_json: bool) -> Exit:
    trace = "".join(traceback.format_exception(error))
    text = (f"{trace}\n{click.style('This is a bug in Yaoki', fg='red', bold=True)} ({type(error).__name__}). What was acknowledged "
            "before is safe.\n  do this: report it with the lines above, and what you typed")
    _print({"error": {"type": type(error).__name__, "message": str(error), "bug": True, "trace": trace}}, text, as_json=as_json)
    return Exit.BUG


def _print(data: dict[str, Any], text: str, *, as_json: bool) -> None:
    click.echo(to_json(data) if as_json else text, err=True, color=wants_color(sys.stderr))
