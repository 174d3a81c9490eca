"""Group commit: what goes together, who is told when, and that every operation is committed once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtual_time import run
from yaoki import runtime
from yaoki.saga.journal.group import MAX_BATCH, GroupCommit


class Disk:
    """Takes a second for a commit, and remembers them. `fails`: numbers of the commits that fail."""

    def __init__(self, *, fails: frozenset[int] = frozenset()) -> None:
        self.commits: list[list[int]] = []
        self.busy = False
        self._fails = fails

    async def commit(self, batch: list[int]) -> list[str]:
        assert not self.busy, "one at a time, so that they are in order"
        self.busy = True
        await runtime.sleep(1.0)
        self.busy = False
        self.commits.append(batch)
        if len(self.commits) - 1 in self._fails:
            raise OSError("disk full")
        return [f"answer {each}" for each in batch]


async def runs(group: GroupCommit, writers: int, operations: int) -> None:
    """Each writer hands in its next operation in the turn in which it is told of the last."""

    async def writer(no: int) -> None:
        for step in range(operations):
            assert await group.submit(no + step * writers) == f"answer {no + step * writers}"

    await asyncio.gather(*(writer(no) for no in range(writers)))


def test_few_writers_go_together():
    disk = Disk()
    run(runs(GroupCommit(disk.commit, turns=10), 9, 4))
    assert [len(commit) for commit in disk.commits] == [9, 9, 9, 9]


def test_a_commit_that_nobody_waits_behind_rests_when_its_writers_are_told():
    async def main() -> None:
        disk = Disk()
        group = GroupCommit(disk.commit, turns=10)

        async def writer(no: int) -> None:
            await group.submit(no)
            assert group._idle or no > 0  # the first who is told; the second finds what the first has handed in
            await group.submit(no + 10)

        await asyncio.gather(writer(0), writer(1))
        assert disk.commits == [[0, 1], [10, 11]]

    run(main())


def test_a_writer_waits_for_no_commit_but_its_own():
    async def main() -> float:
        began = runtime.monotonic()
        await runs(GroupCommit(Disk().commit), 16, 5)
        return runtime.monotonic() - began

    assert run(main()) == pytest.approx(5.0)


def test_many_writers_take_turns_so_that_they_work_while_the_disk_does():
    disk = Disk()
    worked: list[bool] = []

    async def main() -> None:
        group = GroupCommit(disk.commit, turns=10)

        async def writer() -> None:
            for step in range(6):
                await group.submit(step)
                worked.append(disk.busy)

        await asyncio.gather(*(writer() for _ in range(20)))

    run(main())
    assert [len(commit) for commit in disk.commits] == [20, *[10] * 9, 10]
    assert sum(worked) >= len(worked) - 20, "but for the first and the last of them, all are at work during a commit"


def test_a_full_batch_leaves_the_rest_to_the_next():
    disk = Disk()
    run(runs(GroupCommit(disk.commit), MAX_BATCH + 5, 1))
    assert [len(commit) for commit in disk.commits] == [MAX_BATCH, 5]


def test_a_commit_that_fails_fails_its_own_and_no_others():
    async def main() -> list[str]:
        group = GroupCommit(Disk(fails=frozenset({1})).commit)
        answers = [await group.submit(1)]
        for operation in (2, 3):
            try:
                answers.append(await group.submit(operation))
            except OSError as error:
                answers.append(str(error))
        return answers

    assert run(main()) == ["answer 1", "disk full", "answer 3"]


def test_closing_waits_for_what_was_given_and_for_its_writers_to_be_told():
    async def main() -> None:
        group = GroupCommit(Disk().commit, turns=2)
        answers = [group.submit(n) for n in range(5)]
        await group.drain()
        assert [answer.result() for answer in answers] == [f"answer {n}" for n in range(5)]

    run(main())


def test_giving_up_the_wait_takes_nothing_back_and_delays_nobody():
    disk = Disk()

    async def main() -> str:
        group = GroupCommit(disk.commit)
        given_up, other = group.submit(1), group.submit(2)
        given_up.cancel()
        return str(await other)

    assert run(main()) == "answer 2"
    assert disk.commits == [[1, 2]]


@given(seed=st.integers(0, 2**32), turns=st.one_of(st.none(), st.integers(1, 8)), writers=st.integers(1, 12),
       fails=st.frozensets(st.integers(0, 12), max_size=3))
def test_every_operation_is_committed_once_in_the_order_of_its_writer_and_answered(seed: int, turns: int | None, writers: int, fails: frozenset[int]):
    rng = random.Random(seed)
    disk = Disk(fails=fails)
    told: Counter[int] = Counter()

    async def main() -> None:
        group = GroupCommit(disk.commit, turns=turns)

        async def writer(no: int) -> None:
            for step in range(5):
                operation = no * 100 + step
                try:
                    assert await group.submit(operation) == f"answer {operation}"
                except OSError:
                    pass
                told[operation] += 1
                await runtime.sleep(rng.choice((0.0, 0.0, 0.3, 1.5)))

        await asyncio.gather(*(writer(no) for no in range(writers)))
        await group.drain()

    run(main())
    committed = [operation for commit in disk.commits for operation in commit]
    assert sorted(committed) == sorted(told) == sorted(no * 100 + step for no in range(writers) for step in range(5))
    assert set(told.values()) == {1}
    for no in range(writers):
        assert [each for each in committed if each // 100 == no] == [no * 100 + step for step in range(5)]
