"""A step for every item of a list: in order, a bounded number at once, failures tolerated or not, undone exactly."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from unit.saga.places import Place, app_on
from unit.saga.places import place as place  # noqa: PLC0414  a fixture
from virtual_time import run
from yaoki import DeclinedError, Effect, Saga, runtime
from yaoki.errors import DefinitionError, RunBlockedError, RunUndoneError
from yaoki.saga.graph import Graph, Node
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Append, NewRun
from yaoki.saga.machine import HistoryError, decide
from yaoki.saga.records import Abort, Failure, Kind, Record, RunState


class World:
    """What was made of which item, and what goes wrong."""

    def __init__(self, *, declines: set[int] = frozenset(), loses: set[int] = frozenset(), slow: float = 0.0) -> None:
        self.log: list[str] = []
        self.declines = declines
        self.loses = loses
        self.slow = slow
        self.now = self.most = 0

    async def make(self, item: int, effect: Effect) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.slow:
                await runtime.sleep(self.slow)
            if item in self.declines:
                raise DeclinedError(f"no {item}")
            self.log.append(effect.key)
            if item in self.loses:
                raise ConnectionResetError("no answer")
            return f"made {item}"
        finally:
            self.now -= 1

    def made(self) -> list[str]:
        return [line for line in self.log if not line.startswith("undo")]

    def undone(self) -> list[str]:
        return [line for line in self.log if line.startswith("undo")]


def album(world: World, *, fails: bool = False, **settings: Any) -> Saga[list[int]]:
    saga = Saga("album", input=list[int])
    settings = {"each": lambda photos: photos, "retry": 1, **settings}

    @saga.step(undo=None)
    async def sort(photos: list[int]) -> list[int]:
        return sorted(photos)

    @saga.step(after="sort", **settings)
    async def resize(photos: list[int], item: int, effect: Effect) -> str:
        return await world.make(item, effect)

    @resize.undo
    async def delete(photos: list[int], item: int, resize: str | None) -> None:
        world.log.append(f"undo {item} {resize}")

    @saga.step(undo=None)
    async def publish(photos: list[int], resize: Any) -> Any:
        if fails:
            raise DeclinedError("not published")
        return resize

    return saga


def result(saga: Saga[Any], value: Any) -> Any:
    async def main() -> Any:
        async with app_on(MemoryJournal, saga) as app:
            return await (await app.start(saga, value, id="a")).result()

    return run(main())


# ── what is made ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_item_is_made_once_under_a_key_of_its_own_and_the_results_are_in_the_order_of_the_items(place: Place):
    world = World()

    async def main() -> None:
        saga = album(world)
        async with app_on(place, saga) as app:
            assert await (await app.start(saga, [3, 1, 2], id="a")).result() == ["made 3", "made 1", "made 2"]

    run(main())
    assert sorted(world.log) == ["a/resize/0", "a/resize/1", "a/resize/2"]


def test_the_list_may_be_what_a_step_above_returns():
    world = World()
    assert result(album(world, each="sort"), [3, 1, 2]) == ["made 1", "made 2", "made 3"]


def test_a_list_without_items_is_done_at_once():
    assert result(album(World()), []) == []


def test_items_are_named_by_their_key():
    world = World()
    result(album(world, key=lambda item: f"photo-{item}"), [3, 1])
    assert sorted(world.log) == ["a/resize/photo-1", "a/resize/photo-3"]


def test_no_more_than_so_many_are_under_way_at_once_and_no_fewer():
    world = World(slow=1.0)
    result(album(world, concurrency=3), list(range(10)))
    assert world.most == 3


def test_plain_functions_are_made_for_each_item_too():
    saga = Saga("sum", input=list[int])

    @saga.step(each=lambda numbers: numbers, undo=None)
    def double(numbers: list[int], item: int) -> int:
        return 2 * item

    assert result(saga, [1, 2, 3]) == [2, 4, 6]


def test_a_step_with_a_condition_may_have_items():
    world = World()
    assert result(album(world, when=lambda photos: len(photos) > 5), [1, 2]) is None
    assert world.log == []


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_item_that_fails_fails_the_step_and_exactly_those_that_may_have_happened_are_undone(place: Place):
    world = World(declines={2}, slow=1.0)

    async def main() -> None:
        saga = album(world, concurrency=2)
        async with app_on(place, saga) as app:
            with pytest.raises(RunUndoneError, match=r"resize: TooManyFailed: 1 of 6 items failed; 2: DeclinedError: no 2"):
                await (await app.start(saga, list(range(6)), id="a")).result()

    run(main())
    assert world.made() == ["a/resize/0", "a/resize/1", "a/resize/3"], "those under way are awaited, and no others begin"
    assert world.undone() == ["undo 3 made 3", "undo 1 made 1", "undo 0 made 0"]


@pytest.mark.parametrize(("tolerate", "ends"), [(1, RunState.UNDONE), (2, RunState.COMPLETED), (0.2, RunState.COMPLETED), (0.19, RunState.UNDONE)])
def test_so_many_may_fail_and_their_result_is_none(tolerate: float, ends: RunState):
    world = World(declines={2, 5})

    async def main() -> None:
        saga = album(world, tolerate=tolerate)
        async with app_on(MemoryJournal, saga) as app:
            handle = await app.start(saga, list(range(10)), id="a")
            assert await handle.wait() is ends
            if ends is RunState.COMPLETED:
                assert await handle.result() == [None if n in {2, 5} else f"made {n}" for n in range(10)]

    run(main())
    assert len(world.undone()) == (len(world.made()) if ends is RunState.UNDONE else 0)


def test_a_tolerated_item_in_doubt_leaves_nothing():
    world = World(loses={1})
    assert result(album(world, tolerate=1), [0, 1, 2]) == ["made 0", None, "made 2"]
    assert world.undone() == ["undo 1 None"]


def test_all_items_are_undone_when_a_later_step_fails(place: Place):
    world = World(loses={1})

    async def main() -> None:
        saga = album(world, fails=True, tolerate=1)
        async with app_on(place, saga) as app:
            assert await (await app.start(saga, [0, 1, 2], id="a")).wait() is RunState.UNDONE

    run(main())
    assert sorted(world.undone()) == ["undo 0 made 0", "undo 1 None", "undo 2 made 2"]


def test_cancelling_waits_for_the_items_under_way_and_begins_no_others(place: Place):
    world = World(slow=10.0)

    async def main() -> None:
        saga = album(world, concurrency=2)
        async with app_on(place, saga) as app:
            handle = await app.start(saga, list(range(6)), id="a")
            await runtime.sleep(15.0)
            await handle.cancel()
            assert await handle.wait() is RunState.CANCELLED

    run(main())
    assert len(world.made()) == 4
    assert len(world.undone()) == 4


def test_a_bug_in_one_item_blocks_the_step_and_a_retry_makes_only_what_is_missing(place: Place):
    world = World()
    broken = {3}
    saga = Saga("album", input=list[int])

    @saga.step(each=lambda photos: photos, undo=None, concurrency=1)
    async def resize(photos: list[int], item: int, effect: Effect) -> str:
        if item in broken:
            raise KeyError(item)
        return await world.make(item, effect)

    async def main() -> None:
        async with app_on(place, saga) as app:
            handle = await app.start(saga, list(range(5)), id="a")
            with pytest.raises(RunBlockedError):
                await handle.result()
            assert len(world.log) == 3
            broken.clear()
            await handle.resolve("resize", "retry")
            assert await handle.result() == [f"made {n}" for n in range(5)]

    run(main())
    assert len(world.log) == 5


def test_an_undo_that_gives_up_blocks_the_run_and_a_retry_undoes_the_rest(place: Place):
    world = World()
    broken = {1}
    saga = Saga("album", input=list[int])

    @saga.step(each=lambda photos: photos, concurrency=1)
    async def resize(photos: list[int], item: int, effect: Effect) -> str:
        return await world.make(item, effect)

    @resize.undo(retry=1)
    async def delete(photos: list[int], item: int, resize: str | None) -> None:
        if item in broken:
            raise KeyError(item)
        world.log.append(f"undo {item}")

    @saga.step(undo=None)
    async def publish(photos: list[int], resize: list[str]) -> None:
        raise DeclinedError("no")

    async def main() -> None:
        async with app_on(place, saga) as app:
            handle = await app.start(saga, list(range(3)), id="a")
            assert await handle.wait() is RunState.BLOCKED
            assert world.undone() == ["undo 2"]
            broken.clear()
            await handle.resolve("resize", "retry")
            await runtime.sleep(1.0)
            assert await handle.wait() is RunState.UNDONE

    run(main())
    assert world.undone() == ["undo 2", "undo 1", "undo 0"]


def test_a_person_who_says_that_a_blocked_step_did_not_happen_has_its_items_undone_all_the_same():
    world = World()
    saga = Saga("album", input=list[int])

    @saga.step(each=lambda photos: photos, concurrency=1)
    async def resize(photos: list[int], item: int, effect: Effect) -> str:
        if item == 1:
            raise KeyError(item)
        return await world.make(item, effect)

    @resize.undo
    async def delete(photos: list[int], item: int, resize: str | None) -> None:
        world.log.append(f"undo {item}")

    async def main() -> None:
        async with app_on(MemoryJournal, saga) as app:
            handle = await app.start(saga, [0, 1, 2], id="a")
            assert await handle.wait() is RunState.BLOCKED
            await handle.resolve("resize", "undone")
            await runtime.sleep(1.0)
            assert await handle.wait() is RunState.UNDONE

    run(main())
    assert world.undone() == ["undo 1", "undo 0"]


def test_after_the_pivot_items_are_driven_until_they_succeed():
    tries: dict[int, int] = {}
    saga = Saga("album", input=list[int])

    @saga.step(pivot=True, undo=None)
    async def order(photos: list[int]) -> int:
        return 1

    @saga.step(each=lambda photos: photos)
    async def resize(photos: list[int], item: int) -> int:
        tries[item] = tries.get(item, 0) + 1
        if tries[item] < 6:
            raise ConnectionResetError("again")
        return item

    assert result(saga, [1, 2]) == [1, 2]


# ── restarts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_done_is_not_made_again_after_a_restart(place: Place):
    world = World(slow=10.0)

    async def main() -> None:
        saga = album(world, concurrency=2)
        async with app_on(place, saga) as app:
            await app.start(saga, list(range(6)), id="a")
            await runtime.sleep(15.0)
        async with app_on(place, saga) as app:
            assert await app.run(saga, "a").result() == [f"made {n}" for n in range(6)]

    run(main())
    assert sorted({key: world.log.count(key) for key in world.log}.items()) == [(f"a/resize/{n}", 1) for n in range(4)] + [
        (f"a/resize/{n}", 1) for n in range(4, 6)]


def test_items_that_were_not_begun_because_the_run_was_to_be_undone_are_made_where_that_died_with_its_process(place: Place):
    """Their beginning was durable when somebody asked to cancel, or to retry, and the process died before the answer was."""
    world = World()
    not_begun = Failure("NotBegun", "the run was to be undone before it was begun", attempts=0)
    records = [rec(Kind.DONE, "sort", [1, 2]), *(rec(Kind.STARTED, f"resize/{n}") for n in range(2)),
               *(rec(Kind.FAILED, f"resize/{n}", not_begun) for n in range(2))]

    async def main() -> None:
        saga, journal = album(world), place()
        await journal.open()
        created = await journal.create(NewRun("a", saga.name, saga.graph.hash, b"[1,2]", at=1.0))
        await journal.append(Append(created.header.no, 0, tuple(records)))
        await journal.close()
        async with app_on(place, saga) as app:
            assert await app.run(saga, "a").result() == ["made 1", "made 2"]

    run(main())
    assert world.log == ["a/resize/0", "a/resize/1"]


def test_ten_thousand_items_cost_what_a_hundred_cost_each():
    """No quadratic work: counted in looks at the machine, not in seconds."""
    def records(count: int) -> int:
        saga = Saga("many", input=int)

        @saga.step(each=range_of, undo=None, concurrency=100)
        async def one(n: int, item: int) -> int:
            return item

        journal = MemoryJournal()

        async def main() -> int:
            async with app_on(lambda: journal, saga) as app:
                handle = await app.start(saga, count, id="m")
                assert len(await handle.result()) == count
                return len((await handle.stored()).records)

        return run(main())

    assert records(10_000) == 20_001
    assert records(100) == 201


def range_of(n: int) -> list[int]:
    return list(range(n))


# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────────

FAN = Graph("fan", (Node("a", undo=True, parts="each"), Node("b", ("a",))))


def rec(kind: Kind, step: str, data: Any = None) -> Record:
    return Record(kind, step, msgspec.json.encode(data))


@pytest.mark.parametrize("history", [
    [rec(Kind.DONE, "a/0")],
    [rec(Kind.STARTED, "a/0"), rec(Kind.STARTED, "a/0")],
    [rec(Kind.STARTED, "b/0")],
    [rec(Kind.STARTED, "c/0")],
    [rec(Kind.UNDONE, "a/0")],
    [rec(Kind.STARTED, "a/0"), rec(Kind.UNDONE, "a/0"), rec(Kind.UNDONE, "a/0")],
    [rec(Kind.STARTED, "a/0"), rec(Kind.DONE, "a/0"), rec(Kind.DONE, "a"), rec(Kind.STARTED, "a/1")],
    [rec(Kind.ABORT, "", Abort("x", started=("a",))), rec(Kind.STARTED, "a/0")],
    [rec(Kind.STARTED, "a/0"), rec(Kind.WAITING, "a/0")],
])
def test_an_impossible_history_of_parts_is_refused(history: list[Record]):
    with pytest.raises(HistoryError):
        decide(FAN, history)


def test_a_step_that_failed_is_undone_if_a_part_of_it_may_have_happened_whatever_its_record_says():
    history = [rec(Kind.STARTED, "a/0"), rec(Kind.DONE, "a/0"), rec(Kind.FAILED, "a", Failure("X", in_doubt=False)), rec(Kind.ABORT, "", Abort("x"))]
    assert decide(FAN, history).undo == ["a"]
    assert decide(FAN, history[2:]).state is RunState.UNDONE


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("settings", "says"), [
    ({"each": "sorted"}, "each='sorted' is not a step above it"),
    ({"each": "count"}, "that step returns int, which is no list"),
    ({"each": 5}, "each= is the name of a step"),
    ({"each": lambda photos: photos, "concurrency": 0}, "concurrency is how many items"),
    ({"each": lambda photos: photos, "tolerate": 1.5}, "tolerate is a number of items"),
    ({"each": lambda photos: photos, "pivot": True}, "the point of no return"),
    ({"each": lambda photos: photos, "once": True}, "made of parts"),
    ({"each": lambda photos: photos, "heartbeat": 5}, "has a heartbeat, and is made of parts"),
    ({"key": str}, "has key=, and no list"),
])
def test_what_cannot_work_is_refused_with_the_line_and_a_remedy(settings: dict[str, Any], says: str):
    saga = Saga("album", input=list[int])

    @saga.step(undo=None)
    async def count(photos: list[int]) -> int:
        return len(photos)

    with pytest.raises(DefinitionError, match=says) as caught:
        @saga.step(undo=None, **settings)
        async def resize(photos: list[int], item: list[int]) -> int:
            return 1

    assert caught.value.do
    assert "test_each.py" in str(caught.value) or "heartbeat" in settings


def test_a_function_that_does_not_take_the_item_is_refused():
    saga = Saga("album", input=list[int])
    with pytest.raises(DefinitionError, match="does not take it"):
        @saga.step(each=lambda photos: photos)
        async def resize(photos: list[int]) -> int:
            return 1


def test_an_undo_takes_what_one_item_gives():
    saga = Saga("album", input=list[int])

    @saga.step(each=lambda photos: photos)
    async def resize(photos: list[int], item: int) -> str:
        return "x"

    with pytest.raises(DefinitionError, match="'resize' is int, but step 'resize' returns str"):
        @resize.undo
        async def delete(photos: list[int], item: int, resize: int) -> None: ...


def test_two_items_of_one_name_are_a_bug_that_says_so():
    async def main() -> None:
        saga = album(World(), key=lambda item: item % 2)
        async with app_on(MemoryJournal, saga) as app:
            with pytest.raises(RunBlockedError):
                await (await app.start(saga, [1, 2, 3], id="a")).result()
            (record,) = [each for each in (await app.run(saga, "a").stored()).records if each.kind is Kind.BLOCKED]
            assert b"3 items, and key= gives them only 2 names" in record.data

    run(main())
