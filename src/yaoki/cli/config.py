"""Show the settings in force, and where each comes from."""

from __future__ import annotations

import click

from yaoki.cli.frame import output
from yaoki.text import without_password


@click.group()
def command() -> None:
    """Show the settings in force, and where each comes from.

    Settings stand in [tool.yaoki] of pyproject.toml or in yaoki.toml, the nearest one, here or in a folder above.
    The environment (YAOKI_DB for db) overrides the file, and a flag overrides both.
    """


@command.command()
@click.option("--origin", is_flag=True, help="Say for each where it was set.")
@click.argument("key", required=False)
def show(*, origin: bool, key: str | None) -> None:
    """Show all settings, or the value of one."""
    from yaoki.cli.frame.settings import known, resolve
    from yaoki.cli.frame.tables import Cell

    found = resolve()
    if key is not None:
        found = {key: found[known(key, "yk config show").key]}
    out = output()
    values = {name: without_password(each.value) if isinstance(each.value, str) else each.value for name, each in found.items()}
    out.emit({name: {"value": values[name], "origin": found[name].origin} if origin else values[name] for name in found})
    if key is not None and not origin:
        out.say(shown(values[key]))
        return
    rows = [(each.setting.key, Cell(shown(values[each.setting.key]), "" if each.origin == "default" else "green"),
             *((each.origin,) if origin else ()), Cell(each.setting.about, dim=True)) for each in found.values()]
    out.table(("setting", "value", *(("origin",) if origin else ()), "what it says"), rows)


def shown(value: object) -> str:
    """A value as one would write it in the file, without quotes."""
    if isinstance(value, list):
        return ", ".join(value) if value else "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}s" if isinstance(value, float) else str(value) or "(none)"
