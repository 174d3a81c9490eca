"""The reference page of the command line, made from the commands themselves and from the tables of settings and exit codes.

    python -m yaoki.cli.frame.reference docs/reference/cli.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.root import root
from yaoki.cli.frame.settings import SETTINGS, Value

HEAD = """\
# The command line

`yk` and `yaoki` are one command, and `python -m yaoki` is the same. In a checkout, `./yk` sets up its environment first.
Words are `yk NOUN VERB`; `yk NOUN --help` prints what stands below. (This page is made by
`python -m yaoki.cli.frame.reference docs/reference/cli.md`.)

## For people and for programs

- Results go to standard output; remarks, progress and errors go to standard error.
- Every command takes `--json`: one object, or one a line (JSON Lines). Times are ISO 8601 in UTC.
- Colours and the progress line appear on a terminal only. `NO_COLOR` turns colours off, `FORCE_COLOR` on.
- The id of a run may be shortened as long as only one run begins so.
- A command that removes things, or touches many runs, shows what it would touch and asks; `--yes` is for scripts. Where
  nobody can answer it is refused (exit code 4).
- Lengths of time have a unit: `250ms`, `2s`, `5m`, `1h30m`, `30d`. `--since` and `--until` take them as well ("an hour
  ago"), or an ISO date or time.

## Exit codes

| code | meaning |
| --- | --- |
"""

MEANINGS = {
    Exit.OK: "it did its work, and all is as it should be",
    Exit.FINDING: "it did its work, and found something: a blocked run, a gap, a violated invariant, a bad line",
    Exit.USAGE: "it could not begin: words, settings, input or store; nothing was sent or stored",
    Exit.INCONCLUSIVE: "it did its work, and cannot say",
    Exit.REFUSED: "a safety guard said no",
    Exit.BUG: "a bug in Yaoki; the traceback is shown, please report it",
    Exit.INTERRUPTED: "interrupted (Ctrl-C); what was acknowledged is safe, and the same command goes on",
    Exit.PIPE_CLOSED: "the reader of its output (`head`) had seen enough",
    Exit.TERMINATED: "terminated (SIGTERM); as for Ctrl-C",
}

ERRORS = """
## Errors

An error says what happened, why that matters, and what to do, under a code that has [a page of its own](errors/README.md)
and that `yk help CODE` explains:

```
YK-3001  trips.db is in use by process 4711
  why:     Two processes driving the same runs would repeat each other's steps.
  do this: stop that process, or let it run your sagas; to look on, use `yk runs`
  see:     yk help YK-3001
```

With `--json` it is an object on standard error: `{"error": {"type", "code", "message", "do", "why", ...}}`. With
`YAOKI_DEBUG=1` its traceback is shown as well.

## Settings

`[tool.yaoki]` in pyproject.toml, or yaoki.toml (the nearest one, here or in a folder above) < the environment < flags.
`yk config show --origin` says where each value comes from. An unknown key is an error.

| key | variable | default | what it says |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The whole page, in Markdown."""
    codes = "".join(f"| {int(code)} | {MEANINGS[code]} |\n" for code in Exit)
    settings = "".join(f"| `{setting.key}` | `{setting.variable}` | {_shown(setting.default)} | {setting.about} |\n" for setting in SETTINGS)
    return HEAD + codes + ERRORS + settings + "\n" + "\n".join(_commands())


def _shown(value: Value) -> str:
    text = ", ".join(value) if isinstance(value, list) else f"{value:g}s" if isinstance(value, float) else str(value)
    return f"`{text}`" if text else "none"


def _commands() -> Iterator[str]:
    top = click.Context(root, info_name="yk", terminal_width=100, max_content_width=100, color=False,
                        help_option_names=["-h", "--help"])
    for noun in sorted(root.list_commands(top)):
        command = root.get_command(top, noun)
        assert command is not None
        yield from _help(click.Context(command, parent=top, info_name=noun), level=2)


def _help(context: click.Context, level: int) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}\n\n```\n{click.unstyle(context.get_help())}\n```\n"
    below = getattr(context.command, "commands", {})
    for name in sorted(below):
        yield from _help(click.Context(below[name], parent=context, info_name=name), level + 1)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), "utf-8")
