"""`yk runs show`: one run. First what is wrong and what to do about it, then the graph, then the history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yaoki import runtime
from yaoki.cli.frame import Exit, Output, output
from yaoki.cli.frame.durations import show_age, show_duration, show_instant
from yaoki.cli.frame.options import unless_default
from yaoki.cli.frame.pictures import FORMATS, paint, picture, save
from yaoki.cli.runs.choosing import db_option
from yaoki.cli.runs.completing import complete_run
from yaoki.cli.runs.listing import COLORS, as_data
from yaoki.saga.records import RunState
from yaoki.text import columns_of, cut, printable

if TYPE_CHECKING:
    from yaoki.cli.runs.beside import Beside
    from yaoki.cli.runs.family import Family
    from yaoki.cli.runs.operated import Operated
    from yaoki.cli.runs.story import Story
    from yaoki.saga.journal.port import Request


@click.command()
@click.argument("run", shell_complete=complete_run)
@db_option
@click.option("--format", "form", type=click.Choice(FORMATS), default="terminal", show_default=True, help="Draw the graph so.")
@click.option("-o", "--output", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the picture into this file.")
@click.option("--full", is_flag=True, help="Do not shorten inputs, results and errors.")
def show(*, run: str, db: str, form: str, file: Path | None, full: bool) -> Exit:
    """Show one run: its graph with the state of each step, and all that happened.

    Exit code 1 when it is blocked.
    """
    from yaoki.cli.frame.journal import wait_for

    story, asked, beside, operated, family = wait_for(_load(db, run))
    out = output()
    out.emit({**as_data(story.stored.header), **story.ends(), "steps": story.steps(), "history": story.history(),
              "asked": [_asked(request) for request in asked], **family.data(), **beside.data(), **operated.data()})
    if form != "terminal" or file is not None:
        _draw(out, story, form, file)
    else:
        for line in _pages(out, story, asked, [*family.lines(db), *beside.lines(), *operated.lines()], db, full=full):
            out.say(line)
    return Exit.FINDING if story.stored.header.state is RunState.BLOCKED else Exit.OK


async def _load(db: str, run: str) -> tuple[Story, list[Request], Beside, Operated, Family]:
    from yaoki.cli.frame.journal import find, observed
    from yaoki.cli.runs.beside import Beside
    from yaoki.cli.runs.family import Family
    from yaoki.cli.runs.operated import Operated
    from yaoki.cli.runs.story import Story
    from yaoki.saga.graph import Graph

    async with observed(db) as journal:
        stored = await find(journal, run)
        graph = await journal.load_graph(stored.header.graph)
        # An engine that was stopped right after it carried something out had no time to tick it off.
        asked = [] if stored.header.state.is_end else [r for r in await journal.requests() if r.run == stored.header.id]
        beside = Beside("", {}, []) if stored.header.state.is_end else await Beside.read(journal, stored.header.id)
        operated = await Operated.read(journal, stored.header)
        family = await Family.read(journal, stored.header.id)
    return Story(stored, Graph.from_json(graph) if graph else None), asked, beside, operated, family


def _draw(out: Output, story: Story, form: str, file: Path | None) -> None:
    from yaoki.errors import UsageError

    if story.graph is None or story.machine is None:
        raise UsageError(f"run {story.stored.header.id} cannot be drawn: {story.wrong}", do="`yk runs show` prints its history")
    drawn = picture(story.graph, story.looks(), form)
    if file is None:
        out.say(drawn.rstrip("\n"))
    else:
        save(file, drawn)
        out.remark(f"wrote {file}")


def _pages(out: Output, story: Story, asked: list[Request], beside: list[str], db: str, *, full: bool) -> Iterator[str]:
    yield from _head(story)
    yield from beside
    yield from _trouble(story, asked, db)
    if story.graph is not None and story.machine is not None:
        yield "\n" + picture(story.graph, story.looks(), "terminal", out=out)
    elif story.wrong:
        yield click.style(f"\nno picture: {story.wrong}", fg="yellow")
    yield ""
    yield from _history(story, None if full else out.terminal_width)


def _head(story: Story) -> Iterator[str]:
    header, now = story.stored.header, runtime.unix_time()
    yield (f"{click.style(printable(header.id), bold=True)}  {click.style(header.state, fg=COLORS[header.state], bold=True)}"
           f"  {header.saga}")
    took = f"took {show_duration(header.finished_at - header.created_at)}" if header.finished_at else \
        f"last progress {show_age(header.updated_at, now)}"
    parts = [f"began {show_instant(header.created_at)} ({show_age(header.created_at, now)})", took]
    if header.deadline_at and not header.finished_at:
        parts.append(f"deadline {show_instant(header.deadline_at)}")
    yield click.style("  " + ", ".join(parts), dim=True)


def _trouble(story: Story, asked: list[Request], db: str) -> Iterator[str]:
    header = story.stored.header
    if header.reason and not header.reason.endswith("needs a person"):
        yield f"  why: {printable(header.reason)}"
    for step, failure in story.blocked().items():
        from yaoki.cli.runs.story import in_words, own_frames

        yield click.style(f"\n  ! {step}{' (undo)' if failure.undo else ''}: {printable(in_words(failure))}", fg="red")
        yield from (click.style(f"      {line}", dim=True) for line in own_frames(failure.trace))
        yield from (f"    {line}" for line in _ways_out(header.id, step, undo=failure.undo, db=db))
    for request in asked:
        yield click.style(f"  asked {show_age(request.at, runtime.unix_time())}: {_in_words(request)}; not carried out yet", fg="yellow")


def _ways_out(run: str, step: str, *, undo: bool, db: str) -> Iterator[str]:
    """The commands that end the block, each with when it is right."""
    ways = [("retry", "try again, after a fix")]
    if undo:
        ways += [("undone", "it was taken back by hand"), ("done", "leave its effect, and undo the rest")]
    else:
        ways += [("done --result JSON", "it did happen: go on with its result"), ("undone", "it did not happen: undo the run")]
    commands = [f"yk runs resolve {run} {step} {decision}{unless_default(db)}" for decision, _ in ways]
    wide = max(len(command) for command in commands)
    for command, (_, when) in zip(commands, ways, strict=True):
        yield f"{command:<{wide}}   {click.style(when, dim=True)}"


def _history(story: Story, width: int | None) -> Iterator[str]:
    from yaoki.cli.runs.family import condensed

    lines = story.lines() if width is None else condensed(story.lines())
    at_wide = max(len(f"+{line.at_s:.3f} s") for line in lines)
    step_wide = max(columns_of(line.step) for line in lines)
    what_wide = max(columns_of(line.what) for line in lines)
    shortened = False
    for line in lines:
        at = click.style(f"{f'+{line.at_s:.3f} s':>{at_wide}}", dim=True)
        name = line.step + " " * (step_wide - columns_of(line.step))
        more = printable(line.more)
        if width is not None:
            whole, more = more, cut(more, max(20, width - at_wide - step_wide - what_wide - 10))
            shortened = shortened or more != whole
        what = f"{line.what:<{what_wide}}" if more else line.what
        yield f"{at}  {paint(line.mark, line.tone)} {name}  {paint(what, line.tone)}" + (f"  {click.style(more, dim=True)}" if more else "")
    if shortened:
        yield click.style("(shortened to the width of the terminal; --full shows all)", dim=True)


def _asked(request: Request) -> dict[str, Any]:
    import msgspec

    return {"at": show_instant(request.at), "kind": request.kind, **msgspec.json.decode(request.data)}


def _in_words(request: Request) -> str:
    told = _asked(request)
    by = f" by {told['who']}" if told.get("who") else ""
    if request.kind == "resolve":
        return f"{told.get('step')} is {told.get('decision')}{by}"
    about = told.get("name") or told.get("step")  # of an answer, or of what the outside has completed
    return f"{request.kind}{f' {about}' if about else ''}{by}"
