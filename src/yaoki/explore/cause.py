"""The likely cause of a broken invariant, in one sentence, from what services saw. A guess, and said as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yaoki.chaos import faults

if TYPE_CHECKING:
    from yaoki.explore.outcome import Execution


def likely(run: Execution) -> str:
    """One sentence, or "" when nothing better than the invariant itself can be said."""
    broken = {each.invariant: each.why for each in run.violations}
    after = _after(run)
    if "no_double_undo" in broken:
        return f"the undo is not idempotent: it was carried out again {after}"
    if "no_double_effect" in broken:
        return f"the call is repeated {after}, and the service cannot know it for a repetition: give every attempt the same idempotency key"
    if "all_or_nothing" in broken:
        return _all_or_nothing(run, after)
    if "every_run_ends" in broken and run.stuck:
        return "something waits without a timeout, or repeats without a limit" if "never comes" in run.stuck or "calls" in run.stuck else ""
    if "answer_agrees" in broken:
        return f"an error is swallowed, or an answer is taken for granted, {after}"
    return ""


def _after(run: Execution) -> str:
    if not run.plan:
        return "even without a fault"
    fault = faults.find(run.plan[-1].fault)
    return f"after this: {fault.says}"


def _all_or_nothing(run: Execution, after: str) -> str:
    for (service, subject), net in run.effects.items():
        log = [op for op, whose in run.logs.get(service, ()) if whose == subject]
        if net > 0 and log[-1:] == ["book"] and any(p.service == service and p.site.endswith((".cancel", "cancel")) for p in run.points):
            return f"the effect at {service} came after its own undo (suspension), {after}"
        if net > 0 and not any(p.service == service and "cancel" in p.site for p in run.points):
            return f"{service} is never asked to cancel, although its effect may exist {after}"
    return f"an effect is missing or left over {after}"
