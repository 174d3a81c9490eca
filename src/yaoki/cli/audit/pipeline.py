"""`yk audit SOURCE`: look once or for ever; `yk audit repair SOURCE`: bring back what is missing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from yaoki.cli.frame import Exit, Output, output
from yaoki.cli.frame.options import DURATION
from yaoki.errors import ConfigError

if TYPE_CHECKING:
    from yaoki.ledger.pipelines import Pipeline
    from yaoki.ledger.watch import Watch

F = TypeVar("F", bound=Callable[..., Any])


def pipeline_options(command: F) -> F:
    """What is audited, and how soon it must arrive: the same words for looking and for repairing."""
    options = (
        click.argument("source"),
        click.option("--sink", required=True, metavar="SINK", help="Where versions come to rest, with {key} and {version}."),
        click.option("--key", default="key", show_default=True, metavar="NAME", help="Attribute or column that names the thing."),
        click.option("--version", default="version", show_default=True, metavar="NAME", help="Attribute that counts its changes."),
        click.option("--via", default="", metavar="lambda:NAME", help="The function between them; repair goes through it."),
        click.option("--slo", type=DURATION, default="60s", show_default=True, help="A change must have arrived after this."),
        click.option("--every", type=DURATION, default="10s", show_default=True, help="With --watch: how often to look."),
        click.option("--beat", type=DURATION, default="30s", show_default=True, help="How often heartbeats are written."),
        click.option("--canary/--no-canary", default=None, help="Write heartbeats into the source (default with --watch)."),
        click.option("--canary-item", default="{}", metavar="JSON", help="More attributes of canaries, in DynamoDB's JSON."),
        click.option("--first", type=click.IntRange(0, 1), default=None, help="The first version of a key; found out by default."),
        click.option("--slot", default="", metavar="NAME", help="Read a PostgreSQL table by a replication slot of our own."),
        click.option("--state", default="", metavar="FILE", help="Where the audit remembers; by default under .yaoki/."),
        click.option("--endpoint", default="", metavar="URL", help="Of AWS, if not the usual one."),
        click.option("--region", default="", metavar="NAME", help="Of AWS."))
    for option in reversed(options):
        command = option(command)
    return command


def pipeline_of(words: Mapping[str, Any], *, watch: bool) -> Pipeline:
    """The pipeline that the options describe."""
    from yaoki.ledger.pipelines import Pipeline
    from yaoki.ledger.rules import Rules

    try:
        item = json.loads(words["canary_item"])
    except ValueError as error:
        raise ConfigError(f"--canary-item is not JSON: {error}", do="""for example '{"kind": {"S": "canary"}}'""") from error
    canary = watch if words["canary"] is None else words["canary"]
    rules = Rules(slo_s=words["slo"], beat_every_s=words["beat"], audit_every_s=words["every"], seal_every_s=1.0, hold_s=0.0)
    return Pipeline(
        source=words["source"], sink=words["sink"], key=words["key"], version=words["version"], via=words["via"], rules=rules,
        state=words["state"], canary_every_s=words["beat"] if canary else None, canary_item=item, first=words["first"], slot=words["slot"],
        endpoint=words["endpoint"], region=words["region"])


@click.command()
@pipeline_options
@click.option("--watch", is_flag=True, help="Go on looking until stopped; tell what changes.")
@click.option("--repair", "repairs", is_flag=True, help="Bring back what is missing, through its owner's own path.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="Most versions repaired in one go.")
def pipeline(*, watch: bool, repairs: bool, limit: int, **words: Any) -> Exit:
    """Compare a source with a sink and name every version that is missing, extra, altered, doubled or late.

    Without --watch it looks at everything, waits for what is still under way, and exits with 1 if something is not as it
    should be: for cron and CI. Nothing in the pipeline is changed; with canaries, items of their own are written.
    """
    chosen = pipeline_of(words, watch=watch)
    work = _watch(output(), chosen, repairs=repairs, limit=limit) if watch else \
        _once(output(), chosen, repairs=repairs, limit=limit)
    return asyncio.run(work)


@click.command()
@pipeline_options
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="Most versions repaired in one go.")
def repair(*, dry_run: bool, limit: int, **words: Any) -> Exit:
    """Bring back what is missing from a sink, from the source's copy, and read it again before saying so."""
    return asyncio.run(_repair(output(), pipeline_of(words, watch=False), dry_run=dry_run, limit=limit))


async def _once(out: Output, chosen: Pipeline, *, repairs: bool, limit: int) -> Exit:
    from yaoki import runtime
    from yaoki.ledger.pipelines import open_audit
    from yaoki.ledger.repair import repair as bring_back

    async with open_audit(chosen) as audit:
        await audit.look(whole=True)
        if audit.under_way:
            wait_s = chosen.rules.slo_s + 2 * chosen.rules.clock_error_s
            out.remark(f"{audit.under_way} version(s) are not in the sink yet; looking again in {wait_s:.0f} s")
            await runtime.sleep(wait_s)
            await audit.look(whole=True)
        if repairs:
            _say_repair(out, await bring_back(audit, limit=limit))
        return _report(out, audit)


async def _watch(out: Output, chosen: Pipeline, *, repairs: bool, limit: int) -> Exit:
    from yaoki import events, runtime
    from yaoki.errors import RepairRefusedError
    from yaoki.ledger.pipelines import open_audit
    from yaoki.ledger.repair import repair as bring_back
    from yaoki.ledger.rounds import go_round

    rules = chosen.rules
    async with open_audit(chosen) as audit:
        out.remark(f"a loss is named within {rules.loss_bound_s:.0f} s, a standstill within {rules.stuck_bound_s:.0f} s; "
                   f"{'heartbeats are written' if chosen.canary_every_s else 'without heartbeats a quiet time proves nothing'}")

        async def turn() -> None:
            await audit.look()
            if repairs and any(each.kind == "missing" and each.state == "open" for each in audit.auditor.book):
                try:
                    _say_repair(out, await bring_back(audit, limit=limit))
                except RepairRefusedError as error:
                    out.emit({"refused": str(error), "do": error.do})
                    out.remark(f"not repaired: {error}; {error.do}")

        with events.listen(lambda event: _tell(out, event)):
            await turn()  # what is wrong from the beginning is a mistake, and no reason to wait
            await runtime.sleep(rules.audit_every_s)
            await go_round(f"the audit of {audit.sink.name}", turn, lambda: runtime.sleep(rules.audit_every_s))


async def _repair(out: Output, chosen: Pipeline, *, dry_run: bool, limit: int) -> Exit:
    from yaoki.ledger.pipelines import open_audit
    from yaoki.ledger.repair import repair as bring_back

    async with open_audit(chosen) as audit:
        await audit.look(whole=True)
        result = await bring_back(audit, limit=limit, dry_run=dry_run)
        if dry_run:
            out.say(f"{len(result.planned)} version(s) would be brought back:")
            for key, version in result.planned:
                out.say(f"  {key} {version}")
            out.emit(result)
            return Exit.FINDING if result.planned else Exit.OK
        _say_repair(out, result)
        return Exit.FINDING if audit.auditor.book.open_ones() else Exit.OK


def _tell(out: Output, event: Any) -> None:
    """One line for each thing that an audit tells."""
    from yaoki.events import AuditAdvanced, FindingClosed, FindingOpened, KeeperStalled, VerdictReached

    if isinstance(event, (VerdictReached, FindingOpened, FindingClosed, KeeperStalled)):
        out.emit({"event": type(event).__name__, **_fields(event)})
    if isinstance(event, KeeperStalled):
        out.remark(f"{event.who} stands still: {event.error}; trying again in {event.retry_in_s:.0f} s")
    if isinstance(event, VerdictReached):
        out.say(f"{event.part}: {event.kind}. {event.reason}")
    elif isinstance(event, FindingOpened):
        about = f"{event.key} version {event.version} is {event.kind}" if event.version >= 0 else f"{event.kind} {event.part}"
        out.say(f"finding {event.finding}: {about}")
    elif isinstance(event, FindingClosed):
        out.say(f"finding {event.finding} {event.state}: {event.note}")
    elif isinstance(event, AuditAdvanced) and out.json:
        out.emit({"event": "AuditAdvanced", **_fields(event)})


def _fields(event: Any) -> dict[str, Any]:
    import msgspec

    return {name: value for name, value in msgspec.to_builtins(event).items() if name != "type"}


def _say_repair(out: Output, result: Any) -> None:
    out.emit({"repair": result})
    for key, version in result.repaired:
        out.say(f"repaired: {key} version {version}, read again from the sink")
    for name, why in result.failed.items():
        out.say(f"not repaired: {name}: {why}")
    for key, version in result.lost:
        out.say(f"LOST_UNREPAIRABLE: {key} version {version}; no copy exists")


def _report(out: Output, audit: Watch) -> Exit:
    """What one look found, and what it means for a script."""
    from yaoki.cli.audit.findings import say_findings, say_verdicts

    open_ones = [each for each in audit.auditor.book.open_ones() if each.state != "acknowledged"]
    foreign = audit.sink.foreign
    verdicts = audit.progress.verdicts
    out.emit({"source": audit.source.name, "sink": audit.sink.name, "verdicts": verdicts, "findings": open_ones,
              "foreign": foreign, "loss_bound_s": audit.rules.loss_bound_s, "by_name_only": audit.by_name_only})
    say_verdicts(out, verdicts)
    if foreign.count:
        out.say(f"{foreign.count} thing(s) in the sink are not named by the template, such as {', '.join(foreign.examples[:3])}")
    if audit.by_name_only:
        out.say("contents were not compared: only names are known on both sides")
    say_findings(out, open_ones)
    return Exit.FINDING if [each for each in open_ones if not each.kind.startswith("lint:")] else Exit.OK
