"""What a task waits for, in words: for deadlocks, livelocks and leaks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from types import CoroutineType
from typing import Any

# A report that names every task of a big scenario helps nobody.
MOST_TASKS = 12


def describe_tasks(tasks: Iterable[asyncio.Task[Any]], labels: Mapping[Any, str]) -> list[str]:
    """One line a task: `name at file:line in function waits for …`. labels: what is known about a future."""
    lines = [f"{task.get_name()}{_place(task.get_coro())} waits for {_thing(task, labels)}" for task in tasks]
    if len(lines) > MOST_TASKS:
        lines = [*lines[:MOST_TASKS], f"and {len(lines) - MOST_TASKS} more"]
    return lines


def _place(coro: Any) -> str:
    """The innermost line that is not asyncio's own: follow the chain of awaits."""
    place = ""
    while isinstance(coro, CoroutineType):
        frame = coro.cr_frame
        if frame is not None and "asyncio" not in PurePath(frame.f_code.co_filename).parts:
            place = f" at {PurePath(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
        coro = coro.cr_await
    return place


def _thing(task: asyncio.Task[Any], labels: Mapping[Any, str]) -> str:
    target = getattr(task, "_fut_waiter", None)
    if target is None:
        return "its turn"
    if isinstance(target, asyncio.Task):
        return f"the task {target.get_name()}"
    return labels.get(target) or f"a {type(target).__name__} that nobody has answered"
