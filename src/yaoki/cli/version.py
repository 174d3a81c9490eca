"""Print the versions of Yaoki, Python and SQLite."""

from __future__ import annotations

import platform

import click

from yaoki.cli.frame import output


def version() -> str:
    """Yaoki's own version."""
    from yaoki import __version__

    return __version__


@click.command()
def command() -> None:
    """Print the versions of Yaoki, Python and SQLite."""
    import sqlite3

    found = {"yaoki": version(), "python": platform.python_version(), "sqlite": sqlite3.sqlite_version,
             "system": f"{platform.system()} {platform.release()} {platform.machine()}"}
    out = output()
    out.emit(found)
    for name, value in found.items():
        out.say(f"{name:<8}{value}")
