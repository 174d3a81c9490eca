"""What `yk runs show` finds beside a run's history: how far its steps say they are, which keys it holds or waits for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from yaoki import runtime
from yaoki.cli.frame.durations import show_age, show_instant
from yaoki.saga.journal.registers import of_run
from yaoki.saga.locking import shown
from yaoki.text import printable

if TYPE_CHECKING:
    from yaoki.saga.journal.locks import Claim
    from yaoki.saga.journal.port import Journal
    from yaoki.saga.journal.registers import Register


class Beside:
    """Read once, for one run that has not ended."""

    def __init__(self, run: str, beats: dict[str, Register], claims: list[Claim]) -> None:
        self._run = run
        self._beats = beats
        self._claims = claims

    @staticmethod
    async def read(journal: Journal, run: str) -> Beside:
        return Beside(run, await journal.registers(of_run(run)), await journal.claims(run))

    def data(self) -> dict[str, Any]:
        """For programs."""
        return {"heartbeats": {step: {"at": show_instant(beat.at), "detail": _detail(beat)} for step, beat in self._beats.items()},
                "locks": [{"key": shown(claim.key), "holds": claim.holds, "since": show_instant(claim.at), "holder": self._holder(claim)}
                          for claim in self._claims if claim.run == self._run]}

    def lines(self) -> Iterator[str]:
        """For people."""
        now = runtime.unix_time()
        for step, beat in self._beats.items():
            detail = _detail(beat)
            said = "" if detail is None else f": {printable(_text(detail))}"
            yield click.style(f"  ♥ {step} gave a sign of life {show_age(beat.at, now)}{said}", fg="cyan")
        for claim in self._claims:
            if claim.run == self._run and claim.holds:
                yield f"  holds {printable(shown(claim.key))} since {show_age(claim.at, now)}"
            elif claim.run == self._run:
                yield click.style(f"  waits for {printable(shown(claim.key))}, which run {printable(self._holder(claim))} holds "
                                  f"({show_age(claim.at, now)}, {self._before(claim)} before it)", fg="yellow")

    def _holder(self, claim: Claim) -> str:
        return next((other.run for other in self._claims if other.key == claim.key and other.holds), "")

    def _before(self, claim: Claim) -> int:
        return [other.run for other in self._claims if other.key == claim.key].index(claim.run)


def _detail(beat: Register) -> Any:
    import msgspec

    return msgspec.json.decode(beat.data).get("detail")


def _text(detail: Any) -> str:
    import msgspec

    return detail if isinstance(detail, str) else msgspec.json.encode(detail).decode()
