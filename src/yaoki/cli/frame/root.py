"""The words after `yk`: find the noun's file, hand it the rest, and turn whatever happens into an exit code.

Nothing but click is loaded until a noun is named: `yk --help` reads the first line of each file and imports none.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from functools import cache
from io import TextIOWrapper
from typing import NoReturn

import click

from yaoki.cli.frame.exits import Exit
from yaoki.cli.frame.output import Output, wants_color
from yaoki.text import did_you_mean

PACKAGE = "yaoki.cli"
NOT_NOUNS = {"frame"}

# Only the order and the headings of `yk --help`. A noun that is not named here stands under the last heading.
SECTIONS = {
    "Start here": ("demo", "doctor", "help"),
    "Sagas": ("graph", "run", "runs", "locks", "schedules", "plan", "worker"),
    "Proof": ("explore", "chaos", "audit"),
    "Operation": ("dash", "pause", "resume", "queues", "operations", "workers", "deps", "msgs", "ledger", "db"),
    "This program": (),
}


class Nouns(click.Group):
    """A group whose commands are the files of `yaoki.cli`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        order = [noun for nouns in SECTIONS.values() for noun in nouns]
        return sorted(summaries(), key=lambda noun: (order.index(noun) if noun in order else len(order), noun))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in summaries():
            return None
        module = importlib.import_module(f"{PACKAGE}.{_module_of(cmd_name)}")
        command: click.Command = module.command
        command.name = cmd_name
        return with_json(command)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in summaries() and not args[0].startswith("-"):
            ctx.fail(f"there is no command {args[0]!r}{did_you_mean(args[0], summaries())}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        left = self.list_commands(ctx)
        last = list(SECTIONS)[-1]
        for heading, nouns in SECTIONS.items():
            shown = left if heading == last else [noun for noun in left if noun in nouns]
            left = [noun for noun in left if noun not in shown]
            if shown:
                with formatter.section(heading):
                    formatter.write_dl([(noun, summaries()[noun]) for noun in shown])


@cache
def summaries() -> dict[str, str]:
    """Each noun with the first line of its file's docstring, without importing any."""
    package = importlib.import_module(PACKAGE)
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name not in NOT_NOUNS:
            spec = info.module_finder.find_spec(info.name, None)
            source = spec.loader.get_source(info.name) if spec and spec.loader else ""  # type: ignore[attr-defined]
            found[info.name.strip("_").replace("_", "-")] = _first_line(source or "")
    return found


def _first_line(source: str) -> str:
    opening, _, rest = source.partition('"""')
    return "" if opening.strip() else rest.partition("\n")[0].removesuffix('"""').strip()


def _module_of(noun: str) -> str:
    package = importlib.import_module(PACKAGE)
    names = {info.name for info in pkgutil.iter_modules(package.__path__)}
    plain = noun.replace("-", "_")
    return plain if plain in names else f"{plain}_"  # a keyword of Python's: `import_.py`


def with_json(command: click.Command) -> click.Command:
    """Give a command, and all below it, the `--json` option, unless it has one of its own; mend what help texts lost."""
    if not any("--json" in parameter.opts for parameter in command.params):
        command.params.append(click.Option(["--json"], is_flag=True, expose_value=False, is_eager=True, callback=_set_json,
                                           help="Print JSON: one object, or one a line."))
    if command.help:  # in a raw docstring, click's mark for "keep these lines" is two characters
        command.help = command.help.replace("\\b\n", "\b\n")
    for below in getattr(command, "commands", {}).values():
        with_json(below)
    return command


def _set_json(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001  click calls it so
    if value:
        ctx.find_root().ensure_object(Output).json = True


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001  click calls it so
    if value and not ctx.resilient_parsing:
        from yaoki.cli.version import version

        click.echo(f"yaoki {version()}")
        ctx.exit()


root = Nouns(
    "yk",
    help="Operations that finish or undo themselves, whatever fails.",
    epilog="`yk NOUN --help` says more. `yk help CODE` explains an error. `yaoki` is the same command as `yk`.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    params=[click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_show_version,
                         help="Print the version.")],
)
with_json(root)


def run(words: Sequence[str]) -> int:
    """Carry out `yk WORDS` and return its exit code. Never raises for what a user can do wrong."""
    as_json = "--json" in (words[:words.index("--")] if "--" in words else words)
    try:
        ended = _invoke(list(words), as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        return _pipe_closed()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return Exit.USAGE
    except (Exception, KeyboardInterrupt) as error:
        from yaoki.cli.frame.problems import report

        return report(error, as_json=as_json)
    return int(ended) if isinstance(ended, int) else Exit.OK


def _invoke(words: list[str], *, as_json: bool) -> object:
    """Not by `root.main`, which ends the process itself for a closed pipe, with 1, which means a finding here."""
    try:
        with root.make_context("yk", words, color=wants_color(sys.stdout), obj=Output(json=as_json)) as context:
            return root.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code


def _pipe_closed() -> Exit:
    """Python would complain once more when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return Exit.PIPE_CLOSED


def main() -> NoReturn:
    """The entry point of `yk`, `yaoki` and `python -m yaoki`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without boxes and arrows gets question marks, not an error
    asked = os.environ.get("_YK_COMPLETE")
    if asked:  # the shell asks what the tab key may mean
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(root, {}, "yk", "_YK_COMPLETE", asked))
    sys.exit(run(sys.argv[1:]))
