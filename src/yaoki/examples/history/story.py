"""What happened one day, played again and audited from outside: the trigger stops, versions 3 and 4 are lost, nobody is told.

The auditor changes nothing in the pipeline. It reads the stream beside the function, writes canaries, reads the table and
the bucket, and repairs through the owner's own function.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from yaoki import events, runtime
from yaoki.errors import AuditError
from yaoki.events import Event, FindingClosed, FindingOpened, VerdictReached
from yaoki.examples.history.cloud import BUCKET, CREDENTIALS, FUNCTION, REGION, TABLE, Cloud
from yaoki.ledger import verdicts
from yaoki.ledger.findings import Finding
from yaoki.ledger.pipelines import Pipeline, open_audit
from yaoki.ledger.repair import repair
from yaoki.ledger.rules import Rules
from yaoki.ledger.verdicts import Verdict
from yaoki.ledger.watch import Watch

RULES = Rules(slo_s=4, beat_every_s=1, seal_every_s=1, hold_s=0, audit_every_s=1, listing_s=1, clock_error_s=1)
KEY = "A000001"
LOST = (3, 4)

Say = Callable[[str], object]

# How much longer than its bound the play waits for something: a machine may be busy with other things.
PATIENCE_S = 60.0


class Mark(msgspec.Struct, frozen=True):
    """Something on the time line. what: write, arrive, beat, beat_arrived, verdict, finding, closed, stop, start, repair."""

    at: float
    what: str
    text: str = ""
    version: int = -1


class Told(msgspec.Struct, kw_only=True):
    """What the play showed: everything with its time in seconds since the beginning.

    stood_still_s: how much longer than the second that the rules give it the auditor was between two looks, from the standstill until the loss
    was named, because the machine was busy. The bounds are those of an auditor that runs.
    """

    marks: list[Mark] = msgspec.field(default_factory=list)
    quiet_for_s: float = 0.0
    stuck_after_s: float = 0.0
    named_after_s: float = 0.0
    repaired_after_s: float = 0.0
    stood_still_s: float = 0.0
    loss_bound_s: float = RULES.loss_bound_s
    stuck_bound_s: float = RULES.stuck_bound_s
    before_repair: list[str] = msgspec.field(default_factory=list)
    after_repair: list[str] = msgspec.field(default_factory=list)
    findings: list[str] = msgspec.field(default_factory=list)
    lint: list[str] = msgspec.field(default_factory=list)


class Play:
    """The play, with its clock and what it saw."""

    def __init__(self, cloud: Cloud, watch: Watch, say: Say) -> None:
        self.cloud = cloud
        self.watch = watch
        self.say = say
        self.told = Told()
        self.began = self.looked_at = runtime.unix_time()
        self.stood_still_s = 0.0

    def clock(self) -> float:
        return runtime.unix_time() - self.began

    def mark(self, what: str, text: str = "", version: int = -1, at: float | None = None) -> None:
        self.told.marks.append(Mark(self.clock() if at is None else at, what, text, version))

    def hear(self, event: Event) -> None:
        """Put what the audit tells on the time line."""
        at = event.at - self.began
        if isinstance(event, VerdictReached):
            self.mark("verdict", event.kind, at=at)
            self.say(f"{at:6.1f} s  auditor: {event.kind}. {event.reason}")
        elif isinstance(event, FindingOpened) and event.version >= 0:
            self.mark("finding", event.kind, event.version, at)
            self.say(f"{at:6.1f} s  auditor: {event.key} version {event.version} is {event.kind}")
        elif isinstance(event, FindingClosed) and event.state == "closed" and event.kind == "missing":
            self.mark("closed", event.note, at=at)

    async def write(self, version: int) -> None:
        await self.cloud.write(KEY, version, text=f"change {version}")
        self.mark("write", version=version)
        self.say(f"{self.clock():6.1f} s  written: {KEY} version {version}")

    async def look(self) -> list[Verdict]:
        """One look of the auditor's."""
        found = await self.watch.look()
        self.stood_still_s += max(0.0, runtime.unix_time() - self.looked_at - RULES.audit_every_s)
        self.looked_at = runtime.unix_time()
        return found

    async def look_until(self, kind: str, limit_s: float, *, first_write: int | None = None) -> float:
        """Look once a second until a partition has this verdict. Returns how long it took."""
        began = self.clock()
        while self.clock() - began < limit_s:
            if first_write is not None and self.clock() - began > 1:
                await self.write(first_write)
                first_write = None
            if any(each.kind == kind for each in await self.look()):
                return self.clock() - began
            await runtime.sleep(0.5)
        raise AuditError(f"the verdict {kind} was not reached within {limit_s:.0f} s; it is {self.watch.auditor.worst()}",
                         do="the machine may be overloaded: try again")

    async def watch_quiet(self, seconds: float) -> None:
        until = self.clock() + seconds
        while self.clock() < until:
            await self.look()
            await runtime.sleep(0.5)
        self.told.quiet_for_s = seconds


async def play(folder: Path, say: Say = print, *, quiet_s: float = 5.0) -> Told:
    """Play it from beginning to end. Takes about 40 seconds and needs no account, no Docker and no network.

    Args:
        folder: for the auditor's file.
        quiet_s: how long to watch a time in which nothing changes.
    """
    os.environ.update(CREDENTIALS)  # the local cloud's, which are no secret
    async with Cloud() as cloud:
        await cloud.build()
        pipeline = Pipeline(
            source=f"dynamodb://{TABLE}", sink=f"s3://{BUCKET}/logs/{{key}}-{{version}}.log", key="hashid", version="_version",
            via=f"lambda:{FUNCTION}", rules=RULES, state=str(folder / "audit.db"), canary_every_s=RULES.beat_every_s,
            scan_every_s=5.0, endpoint=cloud.endpoint, region=REGION)
        async with open_audit(pipeline) as watch:
            stage = Play(cloud, watch, say)
            with events.listen(stage.hear):
                await _acts(stage, quiet_s)
            await _remember(stage)
            return stage.told


async def _acts(stage: Play, quiet_s: float) -> None:
    told, say = stage.told, stage.say
    await stage.write(1)
    await stage.write(2)
    await _until_archived(stage, 2)  # before anything is delivered "quiet" would be true, and say nothing
    await stage.look_until(verdicts.QUIET, PATIENCE_S)
    say(f"{stage.clock():6.1f} s  nothing changes for {quiet_s:.0f} s: the auditor must stay silent")
    await stage.watch_quiet(quiet_s)
    await stage.look_until(verdicts.QUIET, PATIENCE_S)  # the two writes may have been read, and told as flowing, only meanwhile
    assert not [each for each in watch_findings(stage) if each.is_open and not each.kind.startswith("lint")], "a false alarm"

    await stage.cloud.stop_trigger()
    stage.mark("stop", "the trigger stops")
    stopped, stood_still_s = stage.clock(), stage.stood_still_s
    say(f"{stopped:6.1f} s  the trigger stops. No error, no log, no metric moves")
    await stage.write(LOST[0])
    first_lost = stage.clock()
    await stage.look_until(verdicts.TRIGGER_STUCK, RULES.stuck_bound_s + PATIENCE_S, first_write=LOST[1])
    told.stuck_after_s = stage.clock() - stopped

    await _until_named(stage)
    told.named_after_s = stage.clock() - first_lost
    told.stood_still_s = stage.stood_still_s - stood_still_s
    await stage.cloud.make_trigger_anew("LATEST")
    stage.mark("start", "somebody makes it anew, at LATEST")
    say(f"{stage.clock():6.1f} s  somebody makes the trigger anew, at LATEST, as many would")
    await _until_triggered(stage)
    await stage.write(5)
    await _until_archived(stage, 5)
    told.before_repair = await stage.cloud.archive()
    say(f"{stage.clock():6.1f} s  the bucket without repair: {', '.join(map(short, told.before_repair))}")

    repaired = await repair(stage.watch)
    stage.mark("repair", "repaired through the owner's own function")
    told.repaired_after_s = stage.clock() - first_lost
    told.after_repair = await stage.cloud.archive()
    say(f"{stage.clock():6.1f} s  repaired through the owner's own function: versions "
        f"{' and '.join(str(version) for _, version in repaired.repaired)}, read again from the bucket")
    say(f"{stage.clock():6.1f} s  the bucket now: {', '.join(map(short, told.after_repair))}")
    await stage.look_until(verdicts.QUIET, RULES.stuck_bound_s + PATIENCE_S)


async def _until_named(stage: Play) -> None:
    """Go on looking until both lost versions are named."""
    until = stage.clock() + RULES.loss_bound_s + PATIENCE_S
    while {each.version for each in watch_findings(stage) if each.kind == "missing"} != set(LOST):
        if stage.clock() > until:
            raise AuditError("the lost versions were not named in time", do="the machine may be overloaded: try again")
        await stage.look()
        await runtime.sleep(0.5)


async def _until_archived(stage: Play, version: int) -> None:
    for _ in range(int(PATIENCE_S / 0.5)):
        if f"logs/{KEY}-{version}.log" in await stage.cloud.archive():
            return
        await runtime.sleep(0.5)
    raise AuditError(f"version {version} did not arrive although the trigger runs", do="try again")


async def _until_triggered(stage: Play) -> None:
    """At LATEST a trigger passes by what was written before it reads for the first time; that it reads is seen by a canary that arrives."""
    before = await stage.cloud.beats()
    for _ in range(int(PATIENCE_S / 0.5)):
        await stage.look()
        if await stage.cloud.beats() - before:
            return
        await runtime.sleep(0.5)
    raise AuditError("the trigger that was made anew brings nothing", do="try again")


async def _remember(stage: Play) -> None:
    """Take down when everything arrived, from the bucket itself."""
    listing = await stage.cloud.call("s3", "list_objects_v2", Bucket=BUCKET)
    for each in listing.get("Contents", []):
        found = stage.watch.sink.template.parse(each["Key"])  # type: ignore[attr-defined]
        if found is not None:
            what = "beat_arrived" if found[0].startswith("__beat") else "arrive"
            stage.mark(what, version=found[1], at=each["LastModified"].timestamp() - stage.began)
    for lane in await stage.watch.source.lanes():
        for beat in lane.beats:
            stage.mark("beat", version=beat.number, at=beat.at - stage.began)
    stage.told.findings = [f"{each.kind} {each.key} {each.version}: {each.state}, {each.note}" for each in watch_findings(stage)
                           if each.version >= 0]
    stage.told.lint = [each.note for each in watch_findings(stage) if each.kind.startswith("lint")]
    stage.told.marks.sort(key=lambda each: each.at)


def watch_findings(stage: Play) -> list[Finding]:
    """All findings so far, closed ones too."""
    return list(stage.watch.auditor.book)


def short(name: str) -> str:
    """`logs/A000001-3.log` as `A000001-3`."""
    return name.removeprefix("logs/").removesuffix(".log")
