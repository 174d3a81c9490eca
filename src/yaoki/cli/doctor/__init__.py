"""Look at this machine, the journal and the settings, and say what is not well."""

from __future__ import annotations

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.options import setting


@click.command()
@setting("--db", "db", metavar="URL")
def command(*, db: str) -> Exit:
    """Look at this machine, the journal and the settings, and say what is not well.

    Changes nothing: the journal is only read, and what is written to test the disk is removed. Name your sagas in the
    setting `sagas`, and their definitions, their runs in flight and the policies of their services are looked at as well.

    Exit code 1 when something needs attention.
    """
    from yaoki.cli.doctor import journal, machine, project
    from yaoki.cli.doctor.check import Level

    out = output()
    worst = Level.OK
    for section in (machine, journal, project):
        for check in section.checks(db):
            worst = max(worst, check.level)
            out.emit({"check": check.name, "level": check.level.name.lower(), "found": check.found, "do": check.do or None})
            for line in check.lines():
                out.say(line)
    out.say()
    out.say({Level.OK: "all is well", Level.NOTE: "all is well; see the remarks"}.get(worst, "something needs attention"))
    return Exit.FINDING if worst >= Level.WARN else Exit.OK
