"""Dead letters and quarantined keys: find, correct, redrive, discard. Plain functions over an open store.

A quarantined message keeps its key's order: what came later waits behind it, and goes on in order when it is redriven or
discarded. A dead letter's key has gone on without it: redriven, it is handled after what it once preceded.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from yaoki import runtime
from yaoki.errors import ConfigError, InputError
from yaoki.messages.envelope import Message
from yaoki.messages.store.port import Held, Store

GAVE_UP = ("quarantined", "dead")
MOST = 10_000
"""Messages looked at in one go. Redrive again for more: a person should see how the first went."""
CANARY_WAIT_S = 60.0
LOOK_S = 0.1


class Letter(msgspec.Struct, frozen=True):
    """A message that gave up, or waits, in one group. `message` has the corrected data after an edit."""

    group: str
    message: Message
    held: Held

    @property
    def state(self) -> str:
        return self.held.state

    @property
    def attempts(self) -> int:
        return self.held.attempts

    @property
    def error(self) -> str:
        return self.held.error

    @property
    def history(self) -> tuple[tuple[float, str], ...]:
        return self.held.history

    @property
    def replays(self) -> int:
        return self.held.replays


class Redrive(msgspec.Struct):
    """What a redrive did.

    Attributes:
        chosen: put back on their way. left: not, because canaries failed. failed: canaries that gave up again.
        worn_out: redriven `max_replays` times before, and left alone.
    """

    chosen: list[Letter]
    left: list[Letter]
    failed: list[Letter]
    worn_out: list[Letter]


async def find(store: Store, *, group: str | None = None, key: str | None = None, ids: Collection[str] = (),
               states: Collection[str] = GAVE_UP, error: str = "", limit: int = MOST) -> list[Letter]:
    """Letters, oldest first.

    Args:
        ids: of messages, or unique beginnings of ids. error: only those whose error contains it.
    """
    rows = await store.held(group=group, states=states, key=key, limit=limit)
    letters = [Letter(name, entry.message, held) for name, entry, held in rows]
    if ids:
        letters = [each for each in letters if any(each.message.id.startswith(id_) for id_ in ids)]
    return [each for each in letters if error in each.error]


async def edit(store: Store, letter: Letter, data: bytes) -> Letter:
    """Replace the data with which this group will handle the message. The message itself stays as it was published.

    Raises:
        InputError: `data` is not JSON.
    """
    try:
        msgspec.json.decode(data)
    except msgspec.DecodeError as cause:
        raise InputError(f"the new data of {letter.message.id} is not JSON: {cause}", do="correct it and try again") from cause
    held = msgspec.structs.replace(letter.held, data=data)
    await store.rewrite(letter.group, [held])
    return Letter(letter.group, msgspec.structs.replace(letter.message, data=data), held)


async def redrive(store: Store, *, group: str | None = None, key: str | None = None, ids: Collection[str] = (),
                  error: str = "", max_replays: int = 5, canary: int = 0, dry_run: bool = False,
                  canary_wait_s: float = CANARY_WAIT_S) -> Redrive:
    """Put letters back on their way, with all attempts before them again. Filters are those of `find`.

    Args:
        max_replays: letters that were redriven so often before are left alone.
        canary: redrive this many first, of different keys; only if all are handled go on with the rest.
        dry_run: only say what would be chosen.
        canary_wait_s: how long canaries may take.
    """
    if max_replays < 1 or canary < 0:
        raise ConfigError(f"max_replays={max_replays} and canary={canary} cannot be",
                          do="max_replays counts from 1; canary=0 redrives all at once")
    found = await find(store, group=group, key=key, ids=ids, error=error)
    worn_out = [each for each in found if each.replays >= max_replays]
    fresh = [each for each in found if each.replays < max_replays]
    if dry_run:
        return Redrive(fresh, [], [], worn_out)
    first = _canaries(fresh, canary) if canary else fresh
    await _put_back(store, first)
    rest = [each for each in fresh if each not in first]
    failed = await _wait_handled(store, first, canary_wait_s) if rest else []
    if failed:
        return Redrive(first, rest, failed, worn_out)
    await _put_back(store, rest)
    return Redrive([*first, *rest], [], [], worn_out)


async def discard(store: Store, *, group: str | None = None, key: str | None = None, ids: Collection[str] = (),
                  error: str = "", dry_run: bool = False) -> list[Letter]:
    """Give letters up for good; their keys go on without them. Returns which. Filters are those of `find`."""
    letters = await find(store, group=group, key=key, ids=ids, error=error)
    if not dry_run:
        for name, rows in _by_group(letters).items():
            await store.discard(name, [(each.held.part, each.held.position) for each in rows])
    return letters


def _canaries(letters: Sequence[Letter], count: int) -> list[Letter]:
    """The oldest of each of `count` keys."""
    chosen: dict[tuple[str, str], Letter] = {}
    for each in letters:
        lane = (each.group, each.message.key or each.message.id)
        if len(chosen) < count:
            chosen.setdefault(lane, each)
    return list(chosen.values())


async def _put_back(store: Store, letters: Sequence[Letter]) -> None:
    for name, rows in _by_group(letters).items():
        await store.rewrite(name, [
            msgspec.structs.replace(
                each.held, state="retry", attempts=0, due_at=0.0, replays=each.replays + 1,
                history=(*each.history, (each.held.due_at, each.error))[-10:]) for each in rows])


async def _wait_handled(store: Store, letters: Sequence[Letter], wait_s: float) -> list[Letter]:
    """Those that are not handled in time, or gave up again."""
    until = runtime.monotonic() + wait_s
    names = {each.group for each in letters}
    places = {(each.group, each.held.part, each.held.position) for each in letters}
    while True:
        waiting: list[Letter] = []
        for name in names:
            rows = await store.held(group=name, states=("retry", *GAVE_UP), limit=MOST)
            waiting += [Letter(name, entry.message, held) for _, entry, held in rows
                        if (name, held.part, held.position) in places]
        gave_up = [each for each in waiting if each.state in GAVE_UP]
        if not waiting or gave_up or runtime.monotonic() > until:
            return gave_up or waiting
        await runtime.sleep(LOOK_S)


def _by_group(letters: Sequence[Letter]) -> dict[str, list[Letter]]:
    grouped: dict[str, list[Letter]] = {}
    for each in letters:
        grouped.setdefault(each.group, []).append(each)
    return grouped
