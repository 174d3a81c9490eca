"""What a key's row says must happen next. Pure: a row in, a decision out.

The rule that everything here serves: *the first decision about a key stands*. A decline is such a decision: were it not
kept, a slow first attempt could still succeed after the second was declined, and nobody would ever undo it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from yaoki.errors import DeclinedError, InProgressError, KeyReusedError, SuspendedError, UsageError, YaokiError

State = Literal["doing", "done", "declined", "undone"]
"""`doing` exists only inside the transaction that does it; seen outside, the work was cut off (see `cut_off`)."""

KEY_MAX_CHARS = 255  # what payment providers take, and what fits an index everywhere


class Row(msgspec.Struct, frozen=True):
    """What is kept of one key.

    Attributes:
        key: the effect's key, `run/step` for a saga's step.
        state: see the diagram of the package.
        request: fingerprint of the request that did it; "" for an undo that came first.
        answer: the do's answer as JSON (for a declined one, the error); "null" if it never came.
        undo_answer: the undo's answer as JSON.
        at: seconds since 1970 of the last change.
    """

    key: str
    state: State
    request: str
    answer: str
    undo_answer: str
    at: float


class Answer(msgspec.Struct, frozen=True):
    """What to answer. `replayed`: it was decided before, and nothing was done now."""

    value: Any
    replayed: bool = False


def fingerprint(request: Any) -> str:
    """32 hexadecimal digits that tell one request from another. Bytes and text as they are, anything else as sorted JSON."""
    if isinstance(request, str):
        request = request.encode()
    elif not isinstance(request, bytes):
        request = msgspec.json.encode(request, order="deterministic")
    return hashlib.blake2b(request, digest_size=16).hexdigest()


def check_key(key: str) -> str:
    """The key itself. `UsageError` if it is empty, too long or has a control character."""
    if not key or len(key) > KEY_MAX_CHARS or not key.isprintable():
        raise UsageError(f"an idempotency key must be 1 to {KEY_MAX_CHARS} printable characters, and this one is {key[:40]!r}",
                         do="send the run's id and the step's name, as Yaoki's clients do", key=key[:KEY_MAX_CHARS])
    return key


def answer_again(row: Row, request: str) -> Answer:
    """The answer to a do whose key is known already.

    Raises:
        SuspendedError: the key was undone before.
        KeyReusedError: the key belongs to another request.
        DeclinedError: the first answer was no.
        InProgressError: the first request was cut off by a commit in its middle.
    """
    if row.state == "undone":
        raise SuspendedError(f"{row.key!r} was undone before this request came, so it was not carried out",
                             do="start a new run if the effect is wanted after all", key=row.key)
    if row.request != request:
        raise KeyReusedError(f"{row.key!r} was used before, for another request",
                             do="use a new key for a new request, and send a repeated one unchanged", key=row.key)
    if row.state == "doing":
        raise cut_off(row)
    value = msgspec.json.decode(row.answer)
    if row.state == "declined":
        raise _declined_again(value)
    return Answer(value, replayed=True)


def undoes(row: Row | None) -> bool:
    """Is there an effect to reverse? Raises `InProgressError` for a row that was cut off."""
    if row is not None and row.state == "doing":
        raise cut_off(row)
    return row is not None and row.state == "done"


def cut_off(row: Row) -> InProgressError:
    return InProgressError(f"{row.key!r} is marked as being carried out, and that was committed before it was finished",
                           do="never commit inside the work given to `do`; look what the service did and set the row's state",
                           key=row.key)


def _declined_again(data: dict[str, Any]) -> DeclinedError:
    error = YaokiError.from_dict(data)
    if isinstance(error, DeclinedError):
        return error
    # A subclass that this process does not know (it was renamed, or lives in a module that is not loaded).
    return DeclinedError(error.message, do=error.do, **error.fields)
