"""Look after messages: how far readers are behind, dead letters, quarantined keys; redrive, edit, purge."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from yaoki.cli.frame import Exit, Output, output
from yaoki.cli.frame.options import DURATION, limit_option, setting, yes_option
from yaoki.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from yaoki.messages.boxes import Letter
    from yaoki.messages.store.port import Store

DB_HELP = "Where the messages are: sqlite:///FILE or postgresql://..."


@click.group()
def command() -> None:
    """Look after messages: how far readers are behind, dead letters, quarantined keys; redrive, edit, purge."""


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose letters."""
    for option in (
        click.option("--error", default="", metavar="TEXT", help="Only those whose error contains this."),
        click.option("--key", metavar="KEY", help="Only messages of this key."),
        click.option("--group", metavar="GROUP", help="Only of this reader, as `msgs list` names it."),
    ):
        function = option(function)
    return function


@command.command("list")
@_filters
@limit_option
@setting("--db", "db", help=DB_HELP)
def list_(*, group: str | None, key: str | None, error: str, limit: int, db: str) -> Exit:
    """List readers with lag and oldest age, then what gave up. Exits with 1 if something did."""
    return asyncio.run(_list(output(), db, group=group, key=key, error=error, limit=limit))


@command.command()
@click.argument("message")
@setting("--db", "db", help=DB_HELP)
def show(*, message: str, db: str) -> Exit:
    """Show a message (by its id, or how it begins), what followed from it, and where it stands with each reader."""
    return asyncio.run(_show(output(), db, message))


@command.command()
@click.argument("messages", nargs=-1)
@_filters
@click.option("--canary", type=click.IntRange(min=0), default=0, metavar="N",
              help="Redrive N of different keys first, and the rest only if these succeed.")
@click.option("--max-replays", type=click.IntRange(min=1), default=5, show_default=True,
              help="Leave those alone that were redriven so often.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@yes_option
@setting("--db", "db", help=DB_HELP)
def redrive(*, messages: tuple[str, ...], group: str | None, key: str | None, error: str, canary: int, max_replays: int,
            dry_run: bool, yes: bool, db: str) -> Exit:
    """Put what gave up back on its way; a key's order is kept. Exits with 1 if canaries failed again."""
    chosen = {"group": group, "key": key, "ids": messages, "error": error}
    return asyncio.run(_redrive(output(), db, chosen, canary, max_replays, dry_run=dry_run, yes=yes))


@command.command()
@click.argument("message")
@click.option("--group", metavar="GROUP", help="Of this reader, if several hold it.")
@click.option("--data", metavar="JSON", help="The new data; without it, $EDITOR opens with the old.")
@setting("--db", "db", help=DB_HELP)
def edit(*, message: str, group: str | None, data: str | None, db: str) -> Exit:
    """Correct the data with which a reader will handle a message that gave up; then redrive it."""
    return asyncio.run(_edit(output(), db, message, group, data))


@command.command()
@click.argument("messages", nargs=-1)
@_filters
@click.option("--older-than", type=DURATION, metavar="TIME", help="Delete instead what is older and what every reader has done.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@yes_option
@setting("--db", "db", help=DB_HELP)
def purge(*, messages: tuple[str, ...], group: str | None, key: str | None, error: str, older_than: float | None, dry_run: bool, yes: bool,
          db: str) -> Exit:
    """Give up for good on what gave up; keys that waited go on without it. With --older-than: forget what is done.

    What is forgotten and comes again is taken for new. Words of choreographed runs stay 35 days at least.
    """
    if older_than is not None:
        if messages or group or key or error or dry_run:
            raise UsageError("--older-than concerns all messages that are done", do="leave out messages, filters and --dry-run")
        return asyncio.run(_forget(output(), db, older_than, yes=yes))
    chosen = {"group": group, "key": key, "ids": messages, "error": error}
    return asyncio.run(_purge(output(), db, chosen, dry_run=dry_run, yes=yes))


@contextlib.asynccontextmanager
async def _opened(db: str) -> AsyncIterator[Store]:
    from yaoki.messages.store.opening import open_store

    if db.startswith("sqlite:///") and not Path(db.removeprefix("sqlite:///").partition("?")[0]).exists():  # noqa: ASYNC240
        raise ConfigError(f"there are no messages at {db}", do="check --db; the file is made by the service that publishes")
    store = await open_store(db)
    try:
        yield store
    finally:
        await store.close()


async def _list(out: Output, db: str, *, group: str | None, key: str | None, error: str, limit: int) -> Exit:
    from yaoki.messages import boxes

    async with _opened(db) as store:
        lags = await store.lag(group)
        letters = await boxes.find(store, group=group, key=key, error=error, limit=limit)
    for lag in lags:
        out.emit({"group": lag.group, "waiting": lag.waiting, "oldest_s": lag.oldest_s, "held": lag.states,
                  "under_way": lag.under_way, "keys_quarantined": lag.keys_blocked, "workers": lag.workers})
    out.table(("reader", "waiting", "oldest", "in flight", "retry", "scheduled", "quarantined keys", "dead", "workers"), [
        (lag.group, lag.waiting, f"{lag.oldest_s:.1f} s" if lag.waiting else "-", lag.under_way, lag.states.get("retry", 0) + lag.states.get("behind", 0),
         lag.states.get("scheduled", 0), lag.keys_blocked, lag.states.get("dead", 0), lag.workers) for lag in lags])
    if not lags:
        out.say(f"nobody has read {'as ' + group if group else 'messages'} here yet")
    if not letters:
        return Exit.OK
    for each in letters:
        out.emit(_letter(each))
    out.say("")
    out.table(("message", "reader", "type", "key", "state", "attempts", "replays", "error"), [
        (each.message.id, each.group, each.message.type, each.message.key, each.state, each.attempts, each.replays, each.error)
        for each in letters])
    out.remark("next: yk msgs show MESSAGE, then yk msgs redrive --canary 5")
    return Exit.FINDING


def _letter(each: Letter) -> dict[str, Any]:
    return {"message": each.message.id, "group": each.group, "type": each.message.type, "key": each.message.key, "state": each.state,
            "attempts": each.attempts, "replays": each.replays, "error": each.error, "data": each.message.data.decode("utf-8", "replace"),
            "history": [{"at": at, "error": error} for at, error in each.history]}


async def _show(out: Output, db: str, message: str) -> Exit:
    from yaoki.messages import boxes

    async with _opened(db) as store:
        found = await store.get(message)
        letters = await boxes.find(store, ids=[message], states=("retry", "scheduled", "behind", "quarantined", "dead")) if found else []
    if not found:
        raise UsageError(f"no message's id begins with {message!r}", do="`yk msgs list` names those that gave up; others by the id with which they were published")
    for entry in found:
        each = entry.message
        out.emit({"message": each.id, "source": each.source, "type": each.type, "version": each.version, "key": each.key,
                  "time": each.time, "cause": each.cause, "correlation": each.correlation, "data": each.data.decode("utf-8", "replace")})
        out.say(f"{each.type} v{each.version} {each.id}\n  from {each.source} at {_time(each.time)}, key {each.key or '-'}, "
                f"cause {each.cause or '-'}, conversation {each.correlation or '-'}\n  {each.data.decode('utf-8', 'replace')}")
    for letter in letters:
        out.emit(_letter(letter))
        out.say(f"{letter.group}: {letter.state} after {letter.attempts} attempts: {letter.error}")
        for at, error in letter.history:
            out.say(f"  {_time(at)}  {error}")
    return Exit.OK


async def _redrive(out: Output, db: str, chosen: dict[str, Any], canary: int, max_replays: int, *, dry_run: bool, yes: bool) -> Exit:
    from yaoki.cli.frame.asking import confirm
    from yaoki.messages import boxes

    async with _opened(db) as store:
        plan = await boxes.redrive(store, **chosen, max_replays=max_replays, dry_run=True)
        _refuse_unknown(chosen["ids"], [*plan.chosen, *plan.worn_out])
        _say_which(out, "would be redriven" if dry_run else "to redrive", plan.chosen)
        if plan.worn_out:
            out.say(f"{len(plan.worn_out)} were redriven {max_replays} times already and are left alone (--max-replays)")
        if dry_run or not plan.chosen:
            return Exit.OK
        if canary:
            await _check_handled(store, {each.group for each in plan.chosen})
        confirm(f"redrive {len(plan.chosen)} messages?", yes=yes)
        done = await boxes.redrive(store, **chosen, max_replays=max_replays, canary=canary)
    out.emit({"redriven": [each.message.id for each in done.chosen], "left": len(done.left),
              "failed": [_letter(each) for each in done.failed], "worn_out": len(done.worn_out)})
    if done.failed and all(each.state == "retry" for each in done.failed):
        out.say(f"{len(done.failed)} of {len(done.chosen)} canaries were not handled in time, so {len(done.left)} were left: is the service busy, or gone?")
        return Exit.FINDING
    if done.failed:
        out.say(f"{len(done.failed)} of {len(done.chosen)} canaries failed again, so {len(done.left)} were left: {done.failed[0].error}")
        return Exit.FINDING
    out.say(f"{len(done.chosen)} messages are on their way again")
    return Exit.OK


async def _check_handled(store: Store, groups: set[str]) -> None:
    """Canaries that nobody tries prove nothing."""
    idle = sorted(groups & {lag.group for lag in await store.lag() if not lag.workers})
    if idle:
        raise ConfigError(f"nobody handles messages of {', '.join(idle)} now, so no canary would be tried",
                          do="start the service and redrive then; or redrive without --canary, and they are handled when it is started")


async def _edit(out: Output, db: str, message: str, group: str | None, data: str | None) -> Exit:
    from yaoki.messages import boxes

    async with _opened(db) as store:
        found = await boxes.find(store, ids=[message], group=group)
        if len(found) != 1:
            raise UsageError(f"{len(found)} letters begin with {message!r}" if found else f"no letter begins with {message!r}",
                             do="name one: `yk msgs list`; where several readers hold it, add --group")
        text = data if data is not None else click.edit(found[0].message.data.decode("utf-8", "replace"), extension=".json")
        if text is None:
            out.say("nothing was changed")
            return Exit.OK
        edited = await boxes.edit(store, found[0], text.strip().encode())
    out.emit(_letter(edited))
    out.say(f"{edited.group} will handle {edited.message.id} with the new data; now: yk msgs redrive {edited.message.id}")
    return Exit.OK


async def _purge(out: Output, db: str, chosen: dict[str, Any], *, dry_run: bool, yes: bool) -> Exit:
    from yaoki.cli.frame.asking import confirm
    from yaoki.messages import boxes

    async with _opened(db) as store:
        letters = await boxes.discard(store, **chosen, dry_run=True)
        _refuse_unknown(chosen["ids"], letters)
        _say_which(out, "would be purged" if dry_run else "to purge", letters)
        if dry_run or not letters:
            return Exit.OK
        confirm(f"give up on {len(letters)} messages for good?", yes=yes)
        gone = await boxes.discard(store, **chosen)
    out.emit({"purged": [each.message.id for each in gone]})
    out.say(f"{len(gone)} messages were purged; their keys go on")
    return Exit.OK


async def _forget(out: Output, db: str, older_than: float, *, yes: bool) -> Exit:
    from yaoki.cli.frame.asking import confirm
    from yaoki.messages.pruner import prune_now

    confirm(f"delete what is done and older than {older_than:g} s?", yes=yes)
    async with _opened(db) as store:
        gone = await prune_now(store, keep_s=older_than)
    out.emit({"deleted": gone})
    out.say(f"{gone} messages that every reader had done were deleted")
    return Exit.OK


def _refuse_unknown(ids: tuple[str, ...], letters: list[Letter]) -> None:
    """Who names messages means just these: one that did not give up, or a misspelled id, is not passed over in silence."""
    unknown = [each for each in ids if not any(letter.message.id.startswith(each) for letter in letters)]
    if unknown:
        raise UsageError(f"no message that gave up begins with {', '.join(map(repr, unknown))}", do="`yk msgs list` names them; nothing was done")


def _say_which(out: Output, what: str, letters: list[Letter]) -> None:
    for each in letters:
        out.emit({what.replace(" ", "_"): each.message.id, "group": each.group})
    if not letters:
        out.say("nothing that gave up fits")
        return
    out.table((what, "reader", "key", "state", "replays", "error"), [
        (each.message.id, each.group, each.message.key, each.state, each.replays, each.error) for each in letters])


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
