"""The service's side of a saga: do and undo by key, each effect at most once, in the service's own database.

A caller that gets no answer repeats its request, or undoes it. So a service must expect, for every key, any number of
dos and undos in any order, some of them late. `Participant` keeps one row a key, written in the transaction of the
effect itself, so that the two cannot disagree:

              do                    undo
      none ───────────▶ done ───────────────▶ undone
        │                 ▲ do again: the first answer     ▲ undo again: the first answer; do: SuspendedError
        ├── do, and the service says no ──▶ declined ── undo ──▶ undone
        └── undo whose do never came (null compensation) ──────▶ undone

    effects = Participant()

    with closing(sqlite3.connect("hotel.db")) as db, db:           # the service's own transaction
        answer = effects.do(db, key, lambda: insert_booking(db, order), request=order)

`AsyncParticipant` is the same for asyncpg, `EffectEndpoint` the same over HTTP for any ASGI program.

Source: Garcia-Molina and Salem, Sagas (1987); null compensation and suspension as in the TCC literature; the header as in
the IETF draft *The Idempotency-Key HTTP Header Field*.
"""

from yaoki.saga.participant.aio import AsyncParticipant
from yaoki.saga.participant.asgi import EffectEndpoint, problem
from yaoki.saga.participant.dbapi import Participant
from yaoki.saga.participant.decide import Answer, Row, fingerprint

__all__ = ["Answer", "AsyncParticipant", "EffectEndpoint", "Participant", "Row", "fingerprint", "problem"]
