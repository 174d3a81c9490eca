"""Work that comes round again for as long as its process lives, whatever fails meanwhile.

    turn ──done──▶ wait ──▶ turn ...
      └──failed──▶ told (`KeeperStalled`) ──▶ 1, 2, 4, ... at most 60 s ──▶ turn ...

Who keeps watch must not end with the restart of a database or a throttled listing: that an audit stands still is told by what
watches the audits, but nothing is audited until somebody comes. Only what no waiting mends ends it: a mistake of the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from yaoki import events, runtime
from yaoki.errors import AuditError, FencedError, RepairRefusedError, UsageError
from yaoki.ledger import findings as kinds
from yaoki.ledger.repair import BRAKE, repair

if TYPE_CHECKING:
    from yaoki.ledger.watch import Watch

log = logging.getLogger("yaoki.ledger")

AGAIN_S, AGAIN_CAP_S = 1.0, 60.0


class Dues:
    """What is to be done every so often."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def is_due(self, what: str, every_s: float) -> bool:
        """Is it time, or the first time? Then the next is `every_s` from now."""
        now = runtime.monotonic()
        if now < self._at.get(what, now):
            return False
        self._at[what] = now + every_s
        return True


async def go_round(who: str, turn: Callable[[], Awaitable[object]], wait: Callable[[], Awaitable[object]]) -> NoReturn:
    """Do turn after turn until cancelled, and wait after each. who: for the event of a turn that failed.

    Raises UsageError as it comes.
    """
    failures = 0
    while True:
        try:
            await turn()
        except FencedError as error:
            log.warning("%s", error)  # another process took over in the middle; it goes on there
        except UsageError:
            raise
        except Exception as error:
            again_s = min(AGAIN_S * 2.0 ** min(failures, 10), AGAIN_CAP_S)
            failures += 1
            log.warning("%s stands still: %s: %s; trying again in %g s", who, type(error).__name__, error, again_s)
            events.emit(events.KeeperStalled(who=who, error=f"{type(error).__name__}: {error}", failures=failures, retry_in_s=again_s))
            await runtime.sleep(again_s)
            continue
        failures = 0
        await wait()


async def leave(give_back: Callable[[], Awaitable[object]]) -> None:
    """Give leases back at the end. What cannot be reached any more cannot be told; its leases run out by themselves."""
    try:
        await give_back()
    except Exception as error:
        log.warning("leases were not given back, and run out by themselves: %s: %s", type(error).__name__, error)


async def audit_all(watches: Sequence[Watch], *, repairs: bool, after: Callable[[Watch], Awaitable[object]] | None = None) -> None:
    """Look at every sink; repair what is missing, up to the brake. after: done with each that was looked at."""
    for watch in watches:
        try:
            await watch.look()
        except AuditError as error:
            log.info("%s; %s", error, error.do)  # mostly: another keeper is at it
            continue
        if after is not None:
            await after(watch)
        if repairs and any(each.kind == kinds.MISSING for each in watch.auditor.book.open_ones()):
            try:
                await repair(watch, limit=BRAKE)
            except RepairRefusedError as error:  # the findings stay open, which is the alarm; all else goes on
                log.error("%s: %s; %s", watch.sink.name, error, error.do)  # noqa: TRY400  nothing broke, so no traceback
