"""Settings, definitions, and the policies of the services that they use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yaoki.cli.doctor.check import Check, Level
from yaoki.errors import YaokiError
from yaoki.saga.records import RunState

if TYPE_CHECKING:
    from yaoki.saga.define import Saga

# Runs in flight that are compared with the code, at most.
COMPARED = 1000


def checks(db: str) -> Iterator[Check]:
    from yaoki.cli.frame.settings import find_file, resolve

    try:
        found = resolve()
    except YaokiError as error:
        yield Check("settings", Level.BAD, str(error), error.do)
        return
    path = find_file(Path.cwd())
    said = sum(each.origin != "default" for each in found.values())
    yield Check("settings", Level.OK, f"{said} of {len(found)} set" + (f", in {path}" if path else "; there is no yaoki.toml here or above"))
    targets = found["sagas"].value
    assert isinstance(targets, list)
    if not targets:
        yield Check("sagas", Level.NOTE, "none named, so no definition was looked at", 'set sagas = ["module:saga"] in yaoki.toml')
    for target in targets:
        yield from _saga(db, target)
    if targets:
        yield from _policies()


def _saga(db: str, target: str) -> Iterator[Check]:
    from yaoki.cli.frame.journal import wait_for
    from yaoki.cli.frame.root import summaries
    from yaoki.cli.frame.target import load_saga

    try:
        saga = load_saga(target)
    except YaokiError as error:
        yield Check("saga", Level.BAD, str(error), error.do)
        return
    yield Check("saga", Level.OK, f"{target}: {len(saga.graph)} steps")
    try:
        others = wait_for(_other_versions(db, saga))
    except YaokiError:
        return  # said already where the journal was looked at
    if others:
        yield Check("versions", Level.NOTE, f"{others} runs in flight were started with another definition of {saga.name}",
                    f"yk plan {target}  says what this code would do with each" if "plan" in summaries() else "")


async def _other_versions(db: str, saga: Saga[Any]) -> int:
    from yaoki.cli.frame.journal import observed
    from yaoki.saga.journal.port import Query

    unfinished = (RunState.RUNNING, RunState.UNDOING, RunState.BLOCKED)
    async with observed(db) as journal:
        found = await journal.search(Query(states=unfinished, saga=saga.name, limit=COMPARED))
    return sum(header.graph != saga.graph.hash for header in found)


def _policies() -> Iterator[Check]:
    """What each service's pipeline says about its own order, of the services that the sagas' modules made."""
    from yaoki.policies.policy import Site
    from yaoki.service import services

    for service in services():
        findings = service.policy.findings(Site(service=service.name, idempotent=service.idempotent))
        for finding in findings:
            yield Check("policy", Level.WARN, f"{service.name}: {finding.about}: {finding.what}", finding.do)
        if not findings:
            yield Check("policy", Level.OK, f"{service.name}: in order")
