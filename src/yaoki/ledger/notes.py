"""What an audit remembers between looks, in the ledger's own database: findings, progress, verdicts, drills."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from yaoki.errors import InputError
from yaoki.ledger.findings import Finding
from yaoki.ledger.records import Naming
from yaoki.ledger.store.port import Store, Tx
from yaoki.ledger.verdicts import Verdict

SAVE_NOTE = """INSERT INTO yaoki_ledger_note (name, body) VALUES (?1, ?2)
    ON CONFLICT (name) DO UPDATE SET body = excluded.body"""


class Progress(msgspec.Struct, kw_only=True):
    """How far the audit of a sink has come.

    Attributes:
        audited_through: all that was committed until then is at rest in the sink or named in a finding.
        looked_at, listed_at: when it last looked, and last read the whole sink; seconds since 1970.
        longest_delay_s: the longest measured time from a commit to the finding that named its loss.
        bound_s, silent_after_s: the promise, and the age at which this audit itself must be taken for dead.
    """

    sink: str
    audited_through: float = 0.0
    looked_at: float = 0.0
    listed_at: float = 0.0
    longest_delay_s: float = 0.0
    bound_s: float = 0.0
    silent_after_s: float = 0.0
    verdicts: list[Verdict] = msgspec.field(default_factory=list)

    def is_silent(self, now: float) -> bool:
        """The dead-man's switch: has the auditor not looked for too long?"""
        return now - self.looked_at > self.silent_after_s


async def load_note(store: Store, name: str) -> str | None:
    rows = await store.fetch("SELECT body FROM yaoki_ledger_note WHERE name = ?1", name)
    return rows[0][0] if rows else None


async def save_note(tx: Tx, name: str, body: str) -> None:
    await tx.execute(SAVE_NOTE, name, body)


async def load_progress(store: Store, sink: str) -> Progress:
    """The progress of one sink's audit; an empty one if none ran yet."""
    body = await load_note(store, f"audit/{sink}")
    return msgspec.json.decode(body, type=Progress) if body else Progress(sink=sink)


async def all_progress(store: Store) -> list[Progress]:
    """The progress of every audit that ran on this ledger."""
    rows = await store.fetch("SELECT body FROM yaoki_ledger_note WHERE name LIKE 'audit/%' ORDER BY name")
    return [msgspec.json.decode(body, type=Progress) for (body,) in rows]


async def save_look(tx: Tx, progress: Progress, findings: Iterable[Finding]) -> None:
    """Store what a look found together with how far it came: both or neither."""
    await save_note(tx, f"audit/{progress.sink}", msgspec.json.encode(progress).decode())
    await save_findings(tx, findings)


async def save_findings(tx: Tx, findings: Iterable[Finding]) -> None:
    for each in findings:
        await tx.execute(
            "INSERT INTO yaoki_ledger_finding (id, sink, state, opened_at, body) VALUES (?1, ?2, ?3, ?4, ?5) "
            "ON CONFLICT (id) DO UPDATE SET state = excluded.state, opened_at = excluded.opened_at, body = excluded.body",
            each.id, each.sink, each.state, each.opened_at, msgspec.json.encode(each).decode())


async def load_findings(store: Store, sink: str | None = None, *, everything: bool = False,
                        since: float | None = None) -> list[Finding]:
    """The findings of a sink, or of all: the open ones; with `since` also those opened later; or `everything`."""
    after = 0.0 if everything else 1e18 if since is None else since
    rows = await store.fetch(
        "SELECT body FROM yaoki_ledger_finding WHERE (?1 = '' OR sink = ?1) AND (state <> 'closed' OR opened_at >= ?2) "
        "ORDER BY opened_at, id", sink or "", after)
    return [msgspec.json.decode(body, type=Finding) for (body,) in rows]


async def find_finding(store: Store, beginning: str) -> Finding:
    """The finding whose id begins so. Raises `InputError` if there is none, or more than one."""
    rows = await store.fetch("SELECT body FROM yaoki_ledger_finding WHERE substr(id, 1, ?2) = ?1 ORDER BY id LIMIT 5",
                             beginning, len(beginning))
    found = [msgspec.json.decode(body, type=Finding) for (body,) in rows]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(f"there is no finding {beginning!r}", do="yk audit gaps lists them")
    raise InputError(f"{beginning!r} begins {', '.join(each.id for each in found)}", do="give more of the id")


async def drills(store: Store, sink: str) -> set[Naming]:
    """The versions that deliverers drop on purpose."""
    body = await load_note(store, f"drill/{sink}")
    return {(key, version) for key, version in msgspec.json.decode(body)} if body else set()


async def save_drills(tx: Tx, sink: str, names: set[Naming]) -> None:
    """Tell deliverers what to drop from now on."""
    await save_note(tx, f"drill/{sink}", msgspec.json.encode(sorted(names)).decode())
