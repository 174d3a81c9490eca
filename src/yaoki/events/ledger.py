"""The ledger and its audit."""

from __future__ import annotations

from yaoki.events.telling import Event


class EpochSealed(Event, frozen=True, kw_only=True):
    """A stretch of a ledger's partition was sealed. `rows` 0: nothing changed, which is a statement too."""

    ledger: str
    part: int
    epoch: int
    rows: int


class WatermarkHeld(Event, frozen=True, kw_only=True):
    """An open transaction keeps a ledger from sealing since `held_s`. `holder`: process, age and query."""

    ledger: str
    held_s: float
    holder: str


class FindingOpened(Event, frozen=True, kw_only=True):
    """An audit named something that is not as it should be. `delay_s`: since the change was committed, 0 if not known."""

    finding: str
    kind: str
    sink: str
    key: str = ""
    version: int = -1
    part: str = ""
    delay_s: float = 0.0
    bound_s: float = 0.0


class FindingClosed(Event, frozen=True, kw_only=True):
    """A finding was closed with evidence read again from the sink, or declared lost. state: closed, acknowledged, lost."""

    finding: str
    kind: str
    sink: str
    state: str
    note: str = ""


class VerdictReached(Event, frozen=True, kw_only=True):
    """What an audit proved about a partition: QUIET, FLOWING, LOSS, TRIGGER_STUCK, ... `before`: its last verdict."""

    sink: str
    part: str
    kind: str
    before: str
    reason: str


class AuditAdvanced(Event, frozen=True, kw_only=True):
    """An audit finished a look. All that was committed until `audited_through` is at rest in the sink or named in a finding.

    For alarms: the age of `audited_through`; `open_findings`, `lost` (of those: no copy exists anywhere) and the `worst`
    verdict; `longest_delay_s`, measured from a commit to the finding that named its loss, beside the bounds promised.
    """

    sink: str
    audited_through: float
    open_findings: int
    loss_bound_s: float
    stuck_bound_s: float
    duration_s: float
    longest_delay_s: float = 0.0
    lost: int = 0
    worst: str = ""


class DrillEnded(Event, frozen=True, kw_only=True):
    """A version that was dropped on purpose was named by the audit, after `delay_s`; or was not within `bound_s`."""

    sink: str
    found: bool
    delay_s: float
    bound_s: float


class LedgerPruned(Event, frozen=True, kw_only=True):
    """Old rows were let go. `held`: partitions that keep more than is asked for, because somebody still needs it."""

    ledger: str
    rows: int
    held: int


class KeeperStalled(Event, frozen=True, kw_only=True):
    """Who keeps a ledger, or audits a sink for good, could not do its turn, so many times in a row. It goes on trying."""

    who: str
    error: str
    failures: int
    retry_in_s: float
