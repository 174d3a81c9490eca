"""Steps that are made at most once: whatever dies, they are never made twice."""

from __future__ import annotations

from typing import Any

import pytest

from virtual_time import run
from yaoki import DeclinedError, Saga, runtime
from yaoki.app import App
from yaoki.errors import DefinitionError, InDoubtError, RunBlockedError, RunUndoneError
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.records import RunState


class Post:
    """A letter cannot be unsent, and the post knows no keys. `fails`: what each call does."""

    def __init__(self, *fails: Any) -> None:
        self.sent = 0
        self.asked = 0
        self.fails = list(fails)
        self.log: list[str] = []

    async def send(self) -> str:
        self.sent += 1
        what = self.fails.pop(0) if self.fails else None
        if isinstance(what, BaseException):
            raise what
        if what is not None:
            await runtime.sleep(what)
        return f"letter {self.sent}"


def post_saga(post: Post, verify: Any = None, *, pivot: bool = False, undo: bool = True) -> Saga[int]:
    saga = Saga("post", input=int)

    @saga.step
    async def write(n: int) -> str:
        return "dear"

    @write.undo
    async def burn(n: int, write: str | None) -> None:
        post.log.append("burn")

    @saga.step(once=True, verify=verify, pivot=pivot)
    async def send(n: int, write: str) -> str:
        return await post.send()

    if undo:
        @send.undo
        async def recall(n: int, send: str | None) -> None:
            post.log.append(f"recall {send}")

    return saga


def outcome(saga: Saga[int], journal: MemoryJournal | None = None) -> str:
    async def main() -> str:
        async with App(journal or MemoryJournal(), [saga], concurrency=5, grace=1.0) as app:
            handle = await app.start(saga, 1, id="r")
            try:
                return f"completed: {await handle.result()}"
            except (RunUndoneError, RunBlockedError) as error:
                return f"{type(error).__name__}: {error}"

    return run(main())


def killed_in_the_middle(saga: Saga[int], journal: MemoryJournal) -> None:
    async def main() -> None:
        app = App(journal, [saga], concurrency=5, grace=0.0)
        async with app:
            await app.start(saga, 1, id="r")
            await runtime.sleep(1.0)

    run(main())


def test_a_step_that_goes_well_is_made_once():
    post = Post()
    assert outcome(post_saga(post)) == "completed: letter 1"
    assert post.sent == 1


def test_a_process_that_dies_in_it_leaves_it_in_doubt_and_it_is_undone_and_not_repeated():
    post, journal = Post(50.0), MemoryJournal()
    saga = post_saga(post)
    killed_in_the_middle(saga, journal)
    assert outcome(saga, journal).startswith("RunUndoneError")
    assert (post.sent, post.log) == (1, ["recall None", "burn"])


def test_where_only_forward_is_left_a_person_decides():
    post, journal = Post(50.0), MemoryJournal()
    saga = post_saga(post, pivot=True, undo=False)
    killed_in_the_middle(saga, journal)

    async def main() -> None:
        async with App(journal, [saga], concurrency=5, grace=1.0) as app:
            handle = app.run(saga, "r")
            assert await handle.wait() is RunState.BLOCKED
            assert post.sent == 1
            await handle.resolve("send", "retry", who="me", why="it never left the house")
            assert await handle.result() == "letter 2"

    run(main())


@pytest.mark.parametrize(("answer", "expected", "sent"), [
    ("letter 1", "completed: letter 1", 1),
    (None, "completed: letter 2", 2),
    (ConnectionError("no idea"), "RunUndoneError", 1),
])
def test_verify_settles_the_doubt_after_a_crash(answer: Any, expected: str, sent: int):
    post, journal = Post(50.0), MemoryJournal()

    async def ask(n: int, write: str) -> str | None:
        post.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer

    saga = post_saga(post, ask)
    killed_in_the_middle(saga, journal)
    assert outcome(saga, journal).startswith(expected)
    assert (post.sent, post.asked) == (sent, 1)


def test_a_timeout_is_never_followed_by_another_attempt():
    post = Post(InDoubtError("no answer"))
    assert outcome(post_saga(post)).startswith("RunUndoneError")
    assert (post.sent, post.log) == (1, ["recall None", "burn"])


def test_verify_settles_a_timeout():
    post = Post(InDoubtError("no answer"))

    async def ask(n: int) -> str | None:
        return "letter 1"

    assert outcome(post_saga(post, ask)) == "completed: letter 1"
    assert post.sent == 1


def test_a_refusal_needs_no_undo():
    post = Post(DeclinedError("no stamps"))
    assert outcome(post_saga(post)).startswith("RunUndoneError")
    assert (post.sent, post.log) == (1, ["burn"])


def test_a_bug_blocks_and_is_made_again_only_when_a_person_says_so():
    post = Post(TypeError("a bug"))
    assert outcome(post_saga(post)).startswith("RunBlockedError")
    assert post.sent == 1


@pytest.mark.parametrize("options", [{"once": True, "retry": 3}, {"verify": lambda n: None}])
def test_what_contradicts_itself_is_refused_when_it_is_defined(options: dict[str, Any]):
    saga = Saga("post", input=int)
    with pytest.raises(DefinitionError) as caught:
        @saga.step(undo=None, **options)
        async def send(n: int) -> None: ...
    assert caught.value.do


def test_an_unanswered_question_below_the_pivot_needs_a_default():
    saga = Saga("post", input=int)

    @saga.step(pivot=True, undo=None)
    async def pay(n: int) -> None: ...

    @saga.wait_for(bool, timeout=5)
    async def ask(n: int) -> None: ...

    with pytest.raises(DefinitionError, match="nobody answers in time"):
        _ = saga.graph


