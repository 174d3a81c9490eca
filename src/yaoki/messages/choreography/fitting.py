"""What a choreography cannot do of what a saga may ask, and why: said when a service is to take part, before anything runs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from yaoki.errors import DefinitionError
from yaoki.saga.define import Saga, Step


def check(saga: Saga[Any], steps: Collection[str], service: str) -> None:
    """Raise `DefinitionError` for steps that are not there, and for a saga that needs somebody in charge."""
    unknown = sorted(set(steps) - set(saga.graph.names))
    if unknown or not steps:
        raise DefinitionError(
            f"{service} cannot take part in {saga.name!r} with the steps {unknown or 'none'}",
            do=f"name some of {', '.join(saga.graph.names)}")
    reasons = [f"{step.name}: {why}" for step in saga.steps.values() if (why := _needs_an_orchestrator(step))]
    if saga.keys:
        reasons.append(f"{saga.name}: its runs lock keys, and locks are rows of one journal")
    if reasons:
        raise DefinitionError(
            f"{saga.name!r} cannot be choreographed: {'; '.join(reasons)}",
            do="orchestrate it with `yaoki.open`, or leave these steps to an orchestrated saga that one of its steps starts")


def _needs_an_orchestrator(step: Step[..., Any]) -> str:
    if step.wait is not None and step.wait.kind == "token":
        return "it is completed from outside by a token, which only a journal can look up"
    if step.child:
        return "it starts a run of its own and waits for it, which takes an engine that drives both"
    if step.way is not None or step.parts:
        return "its parts are drawn up while it runs, and nobody but its own history knows them"
    if step.heartbeat is not None:
        return "its signs of life are registers of a journal; a lost worker's message is taken up by its lease here"
    return ""
