"""Make every fault happen at every point of a scenario, in virtual time; replay one from its token."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.durations import parse_duration
from yaoki.cli.frame.pictures import ready_for

if TYPE_CHECKING:
    from types import ModuleType

    from yaoki.cli.frame.output import Output
    from yaoki.explore.report import Report
    from yaoki.explore.scenarios import Scenario


@click.command(epilog="\b\nExamples:\n  yk explore trips:booking --faults 2 --html report.html\n"
                      "  yk explore trips:book_trip --input '{\"traveller\": \"ann\"}'\n"
                      "  yk explore trips:booking --replay 'yk1:payment>payment.book@0=call.lost_ack'")
@click.argument("target", metavar="MODULE:SCENARIO")
@click.option("--faults", type=click.IntRange(0, 6), default=1, show_default=True, help="The most faults in one execution.")
@click.option("--budget", metavar="TIME", help="Stop after this long, for example 60s.")
@click.option("--most", type=click.IntRange(1), metavar="N", help="Stop after so many executions.")
@click.option("--most-broken", type=click.IntRange(1), metavar="N", help="Stop after so many executions that break an invariant.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that share the work.")
@click.option("--part", metavar="I/N", help="Only the I-th of N parts of the work, for several machines or nights.")
@click.option("--kind", "kinds", multiple=True, metavar="FAULT", help="Only these faults: an id, or a family like crash. May be repeated.")
@click.option("--swarm", type=click.IntRange(0), default=0, metavar="N", help="Then draw so many executions with more faults and other orders.")
@click.option("--schedules", type=click.IntRange(0), default=0, metavar="N", help="Execute also up to N other orders in which requests arrive, alone and with single faults.")
@click.option("--orders", type=click.IntRange(0), default=0, metavar="N", help="Try every single fault again in N seeded orders of what falls due together.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of randomness and ids inside.")
@click.option("--order", type=click.IntRange(0), default=0, help="Seed of the order of what falls due together; 0: as it was set.")
@click.option("--input", "given", metavar="JSON", help="What the run starts with, when the target is a saga.")
@click.option("--no-reduction", is_flag=True, help="Execute also what another execution covers.")
@click.option("--audit-reduction", is_flag=True, help="Explore with and without reductions, and compare what is found.")
@click.option("--corpus", type=click.Path(path_type=Path, dir_okay=False), help="Run the counterexamples kept in this file first, and add new ones.")
@click.option("--resume", type=click.Path(path_type=Path, dir_okay=False), help="Keep in this file how far it came, and go on from there.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the report as a page.")
@click.option("--mermaid", type=click.Path(path_type=Path, dir_okay=False), help="Write the first counterexample as a sequence diagram.")
@click.option("--pytest", "test", type=click.Path(path_type=Path, dir_okay=False), help="Write the counterexamples as a test file.")
@click.option("--replay", metavar="TOKEN", help="Run one execution, and tell its story.")
def command(*, target: str, faults: int, budget: str | None, given: str | None, replay: str | None, audit_reduction: bool, no_reduction: bool,
            part: str | None, html: Path | None, mermaid: Path | None, test: Path | None, **settings: Any) -> Exit:
    r"""Explore a scenario, or a saga: every fault at every point, every pair with --faults 2, in one process, in virtual time.

    SCENARIO may be left out where the module has one called `scenario`, or only one.

    \b
    Exit code 0: every invariant held.    1: one was broken, or a planned fault never fired.
              2: it could not begin.      3: it was stopped by --budget or --most, and found nothing; or nothing there can fail.
    """
    from yaoki.explore.exploring import explore
    from yaoki.explore.exploring import replay as run_again

    out = output()
    for file in (html, mermaid, test):
        if file is not None:
            ready_for(file)
    scenario = load_scenario(target, given)
    if replay is not None:
        run, story = run_again(scenario, replay)
        out.emit({**story.to_dict(), "outcome": run.outcome})
        out.say("\n".join(story.timeline()) if not run.violations else story.text())
        return Exit.FINDING if run.violations else Exit.OK
    if audit_reduction:
        return _audit(out, scenario, faults)
    kinds = settings.pop("kinds") or None
    report = explore(scenario, faults=faults, budget=parse_duration(budget, "--budget") if budget else None, kinds=kinds,
                     reduce=not no_reduction, part=_part(part), progress=_progress(out), **settings)
    _clear(out)
    out.emit(report.to_dict())
    out.say(report.text())
    _write(out, report, target, html=html, mermaid=mermaid, test=test)
    if not report.ok:
        return Exit.FINDING
    return Exit.INCONCLUSIVE if report.stopped or not report.points else Exit.OK


def _part(given: str | None) -> tuple[int, int]:
    from yaoki.errors import UsageError

    if given is None:
        return 1, 1
    number, _, parts = given.partition("/")
    if not (number.isdigit() and parts.isdigit() and 1 <= int(number) <= int(parts)):
        raise UsageError(f"--part is I/N, the I-th of N parts, not {given!r}", do="--part 1/12 is the first of twelve")
    return int(number), int(parts)


def load_scenario(target: str, given: str | None = None) -> Scenario:
    """The scenario that `MODULE:NAME` names.

    Raises:
        UsageError: there is none of this name, or a saga without its input.
    """
    from yaoki.cli.frame.target import load_module
    from yaoki.errors import UsageError
    from yaoki.explore.scenarios import Scenario
    from yaoki.text import did_you_mean

    where, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    module = load_module(where)
    found = getattr(module, name, None) if name else _default(module)
    if found is None:
        there = [each for each, value in vars(module).items() if isinstance(value, Scenario) or hasattr(value, "steps")]
        raise UsageError(f"{where} has no {name or 'scenario'!r}{did_you_mean(name or 'scenario', there)}",
                         do=f"name one: {', '.join(f'{where}:{each}' for each in there)}" if there else "decorate a function with @yaoki.explore.scenario")
    if isinstance(found, Scenario):
        return found
    if hasattr(found, "steps"):
        return _of_saga(found, given)
    if callable(found) and not _wants_arguments(found):
        made = found()
        if isinstance(made, Scenario):
            return made
        if inspect.iscoroutine(made):
            made.close()
    raise UsageError(f"{target} is neither a scenario, nor a saga, nor a function that makes a scenario",
                     do="decorate the function with @yaoki.explore.scenario")


def _wants_arguments(found: Any) -> bool:
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return True
    return False


def _default(module: ModuleType) -> Any:
    """What a module explores when nobody says: its `scenario`, the one of its part `exploring`, or its only one."""
    from importlib import import_module
    from importlib.util import find_spec

    from yaoki.explore.scenarios import Scenario

    if hasattr(module, "scenario") and getattr(module.scenario, "__module__", "") != "yaoki.explore.scenarios":
        return module.scenario
    if hasattr(module, "__path__") and find_spec(f"{module.__name__}.exploring") is not None:
        return import_module(f"{module.__name__}.exploring").scenario
    found = [value for value in vars(module).values() if isinstance(value, Scenario) or hasattr(value, "steps")]
    return found[0] if len(found) == 1 else None


def _of_saga(saga: Any, given: str | None) -> Scenario:
    import msgspec

    from yaoki.errors import InputError, UsageError
    from yaoki.explore.sagas import saga_scenario

    if given is None:
        raise UsageError(f"saga {saga.name!r} needs an input to be explored", do="give one: --input '{...}'")
    try:
        value = saga.input.decode(given.encode())
    except msgspec.ValidationError as error:
        raise InputError(f"--input is not what saga {saga.name!r} takes: {error}", do=f"it takes {_shown(saga.input_type)}") from error
    except msgspec.DecodeError as error:
        raise InputError(f"--input is not JSON: {error}", do="quote it for the shell: --input '{\"traveller\": \"ann\"}'") from error
    except ValueError as error:  # pydantic's
        raise InputError(f"--input is not what saga {saga.name!r} takes: {error}", do=f"it takes {_shown(saga.input_type)}") from error
    return saga_scenario(saga, input=value)


def _shown(kind: Any) -> str:
    """`Trip(traveller: str, flight: str)`, or the type's name."""
    fields = getattr(kind, "__annotations__", {})
    named = ", ".join(f"{name}: {getattr(hint, '__name__', hint)}" for name, hint in fields.items())
    return f"{getattr(kind, '__name__', kind)}({named})" if named else str(getattr(kind, "__name__", kind))


def _audit(out: Output, scenario: Scenario, faults: int) -> Exit:
    from yaoki.explore.exploring import audit_reduction

    lost, reduced, full = audit_reduction(scenario, faults=faults)
    out.emit({"lost": sorted(map(list, lost)), "reduced": reduced.executions, "full": full.executions})
    said = "nothing was lost" if not lost else f"LOST: {', '.join(' + '.join(names) for names in sorted(lost))}"
    out.say(f"{reduced.executions:,} executions with reductions, {full.executions:,} without: {said}")
    return Exit.FINDING if lost else Exit.OK


def _progress(out: Output) -> Any:
    from yaoki.cli.frame.output import is_terminal

    if out.json or not is_terminal(sys.stderr):
        return None

    def show(report: Report) -> None:
        rate = report.executions / report.seconds if report.seconds else 0
        click.echo(f"\r{report.executions:,} executions, {rate:,.0f}/s, {report.found} broken", nl=False, err=True)

    return show


def _clear(out: Output) -> None:
    from yaoki.cli.frame.output import is_terminal

    if not out.json and is_terminal(sys.stderr):
        click.echo("\r\033[K", nl=False, err=True)


def _write(out: Output, report: Report, target: str, *, html: Path | None, mermaid: Path | None, test: Path | None) -> None:
    from yaoki.cli.frame.pictures import save
    from yaoki.explore import drawing, page

    if html is not None:
        save(html, page.html(report))
    if mermaid is not None and report.stories:
        save(mermaid, drawing.mermaid(report.stories[0]))
    if test is not None and report.stories:
        named = target if ":" in target else f"{target}:scenario"
        save(test, "\n\n".join(drawing.as_test(story, named, number) for number, story in enumerate(report.stories, 1)))
    for file in (html, mermaid if report.stories else None, test if report.stories else None):
        if file is not None:
            out.remark(f"wrote {file}")
