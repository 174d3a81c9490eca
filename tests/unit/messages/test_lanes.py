"""Lanes, on drawn interleavings: a key's messages one after the other and in order, nothing twice, nothing left behind."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import event, given, settings

from yaoki.messages.envelope import PARTS, Message
from yaoki.messages.lanes import Lanes
from yaoki.messages.store.port import BLOCKING, Entry, Held, Lease, Page

KEYS = ("", "a", "b", "c")


def entry(pos: int, key: str) -> Entry:
    message = Message(id=f"{pos:04}", source="s", type="T", key=key)
    return Entry((0, pos), message.part % 2, message)  # few partitions, so that much happens in each


class World:
    """A store with one reader: what it was told stays, however often the reader begins again."""

    def __init__(self, keys: list[str]) -> None:
        self.log = [entry(pos, key) for pos, key in enumerate(keys, 1)]
        self.cursors: dict[int, tuple[int, int]] = {}
        self.held: dict[tuple[int, tuple[int, int]], Held] = {}
        self.effects: list[Entry] = []
        self.fence = 0
        self.lanes = Lanes(limit=1000)
        self.begin()

    def begin(self) -> None:
        self.fence += 1
        self.lanes = Lanes(limit=1000)
        self.under_way: list[Entry] = []
        parts = {each.part for each in self.log}
        self.lanes.grant(Lease(part, self.cursors.get(part, (0, 0)), self.fence) for part in parts)
        self.lanes.skip(self.held)
        self.look()

    def read(self, limit: int) -> None:
        after = self.lanes.after()
        found = [each for each in self.log if each.position > after[each.part]][:limit]
        end = found[-1].position if len(found) == limit else self.log[-1].position
        self.lanes.offer(Page(found, dict.fromkeys(after, end)), now=0.0)

    def look(self) -> None:
        for part in self.lanes.parts:
            keys = {row.key for (of, _), row in self.held.items() if of == part and row.key and row.state in BLOCKING}
            self.lanes.block(part, keys)
        due = [each for each in self.log if (row := self.held.get((each.part, each.position))) and row.state in {"retry", "behind"}]
        self.lanes.offer_held(Entry(each.position, each.part, each.message, 1, held=True) for each in due)

    def take(self, batch: int) -> None:
        taken = self.lanes.take_batch(batch) if batch > 1 else [each for each in [self.lanes.take()] if each]
        self.under_way += taken

    def settle(self, undurable: list[Entry]) -> None:
        """`undurable`: what is done and not marked yet; what is marked now is taken out of it."""
        settlement = self.lanes.settlement()
        self.cursors.update(settlement.cursors)
        for row in settlement.hold:
            self.held[row.part, row.position] = row
        for place in settlement.drop:
            self.held.pop(place, None)
        self.lanes.written()
        undurable[:] = [each for each in undurable if each.position > self.cursors.get(each.part, (0, 0))
                        and not (each.held and self.held[each.part, each.position].state == "done")]


def held(each: Entry, state: str = "retry") -> Held:
    return Held(part=each.part, position=each.position, key=each.message.key, state=state, attempts=each.attempts + 1)


ACTIONS = st.sampled_from(["read", "take", "batch", "finish", "finish", "fail", "settle", "look", "begin"])


@settings(deadline=None, max_examples=150)
@given(batches=st.booleans(), keys=st.lists(st.sampled_from(KEYS), min_size=5, max_size=25),
       actions=st.lists(st.tuples(ACTIONS, st.integers(0, 20)), min_size=40, max_size=90))
def test_keys_stay_in_order_and_everything_is_handled_in_the_end(batches, keys, actions):
    world, undurable = World(keys), []
    for action, number in [*actions, *[("begin", 0)], *[each for _ in range(60) for each in
                                                        [("read", 50), ("take", 0), ("finish", 0), ("look", 0), ("settle", 0), ("look", 0)]]]:
        event(action)
        if action == "read":
            world.read(number + 1)
        elif action == "take" and not batches:
            world.take(1)
        elif action in {"take", "batch"} and batches and not world.under_way:
            world.take(number + 2)
        elif action in {"finish", "fail"} and world.under_way:
            # A batch is worked off in its order; single messages end in any.
            each = world.under_way.pop(0 if batches else number % len(world.under_way))
            if not world.lanes.is_under_way(each):
                continue
            if action == "fail":
                world.lanes.finish(each, held(each))
            else:
                world.effects.append(each)
                undurable.append(each)
                world.lanes.finish(each)
        elif action == "settle":
            world.settle(undurable)
            # What is done in a transaction is marked in it: otherwise a kill would let it be done again.
            assert not (batches and undurable)
        elif action == "look":
            world.look()
        elif action == "begin":
            # As after a kill: what was done and not written is done again, so it does not count as done here.
            for each in undurable:
                world.effects.remove(each)
            undurable.clear()
            world.begin()
    assert {each.position for each in world.effects} == {each.position for each in world.log}
    assert len(world.effects) == len(world.log), "something was handled twice although it was written as done"
    for key in KEYS[1:]:
        along = [each.position for each in world.effects if each.message.key == key]
        assert along == sorted(along)


def test_one_message_of_a_key_is_under_way_at_a_time():
    world = World(["a", "a", "b"])
    world.read(10)
    first, second = world.lanes.take(), world.lanes.take()
    assert {first.message.key, second.message.key} == {"a", "b"}
    assert world.lanes.take() is None
    world.lanes.finish(first)
    world.lanes.finish(second)
    assert world.lanes.take().position == (0, 2)


def test_the_cursor_stops_before_what_is_unfinished():
    world = World(["a", "a", "a"])
    world.read(10)
    world.take(1)
    world.settle([])
    part = world.log[0].part
    assert world.cursors.get(part, (0, 0)) == (0, 0)
    world.lanes.finish(world.under_way.pop())
    world.settle([])
    assert world.cursors[part] == (0, 1)


def test_a_revoked_partition_ignores_what_was_under_way():
    world = World(["a"])
    world.read(10)
    world.take(1)
    world.lanes.revoke(world.log[0].part)
    assert not world.lanes.finish(world.under_way.pop())
    assert not world.lanes.settlement()


def test_messages_in_memory_are_bounded_by_their_bytes_and_one_is_always_let_in():
    lanes, at = Lanes(limit=1000, limit_bytes=10_000), 0
    lanes.grant([Lease(part, (0, 0), 1) for part in range(PARTS)])
    log = [Message(id=f"{n:04}", source="s", type="T", key=f"k{n}", data=b"x" * (20_000 if n == 150 else 100)) for n in range(200)]
    while at < len(log) or lanes.ready:
        room = max(0, lanes.room)
        page = [Entry((0, at + n + 1), each.part, each) for n, each in enumerate(log[at:at + room])]
        lanes.offer(Page(page, dict.fromkeys(range(PARTS), (0, at + len(page)))), now=0.0)
        at += len(page)
        assert sum(len(each.message.data) for each in page) <= 30_000
        entry = lanes.take()
        assert entry is not None, "nothing is let in any more"
        lanes.finish(entry)
    assert lanes.room > 64, "small messages have made room for more at a time"
