"""Closes the universe: what would reach the real world from inside is virtual, or an error that names its line.

    clocks        time.time, monotonic, perf_counter, datetime.now    virtual          strict: an error
    randomness    random.*, os.urandom, uuid, secrets                 seeded           strict: an error
    waiting       time.sleep                                          an error: it would stop the world
    the machine   sockets, threads, processes                         an error

Only the thread that explores is concerned, and only while a universe runs; everything else sees the real functions. Names
that users' modules imported (`from time import time`) are replaced there too, for the length of the exploration.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import PurePath
from types import FrameType
from typing import Any

from yaoki.errors import ConfigError
from yaoki.explore import intercept
from yaoki.explore import world as worlds
from yaoki.explore.loop import EscapeError
from yaoki.explore.network import run_inline

_STDLIB = sysconfig.get_paths()["stdlib"]
_OURS = str(PurePath(__file__).parent)
_INSTEAD = {
    "time.sleep": "use `await asyncio.sleep`, or `yaoki.runtime.sleep_blocking` in a plain function",
    "threading.Thread.start": "use `yaoki.runtime.run_blocking`, or `asyncio.to_thread`: both run in place here",
    "socket": "reach services by host name with httpx or requests (`world.host`), or fake them",
    "subprocess": "fake what the process would do",
    "clock": "take the time from `yaoki.runtime`, or do without `seal='strict'`",
    "random": "take randomness from `yaoki.runtime.rng()`, or do without `seal='strict'`",
}


@contextlib.contextmanager
def sealed(how: str = "patch") -> Iterator[None]:
    """Close the universes of this thread for the length of the block.

    Args:
        how: "patch" makes clocks and randomness virtual; "strict" makes them errors; "off" leaves everything open.

    Raises:
        ConfigError: another word.
    """
    if how not in {"patch", "strict", "off"}:
        raise ConfigError(f"seal is 'patch', 'strict' or 'off', not {how!r}", do="leave it out for 'patch'")
    if how == "off":
        yield
        return
    thread = threading.get_ident()

    def world() -> worlds.World | None:
        return worlds.active() if threading.get_ident() == thread else None

    with contextlib.ExitStack() as stack:
        replaced = _replacements(world, strict=how == "strict")
        for holder, name, _ in replaced:
            stack.callback(setattr, holder, name, getattr(holder, name))
        originals = {id(getattr(holder, name)): stand_in for holder, name, stand_in in replaced if holder in {time, os, random, uuid, dt}}
        for holder, name, stand_in in replaced:
            setattr(holder, name, stand_in)
        for module in _users_modules():
            _replace_names(module, originals, stack)
        intercept.install(stack, world)
        _threads_inline(stack, world)
        yield


def _replacements(world: Callable[[], worlds.World | None], *, strict: bool) -> list[tuple[Any, str, Any]]:
    """What is put where: (holder, name, stand-in)."""
    def clock(name: str, real: Any, read: Callable[[worlds.World], Any]) -> Any:
        def stand_in() -> Any:
            inside = world()
            if inside is None:
                return real()
            return _escape(inside, name, "clock") if strict else read(inside)

        return stand_in

    def refuse(name: str, real: Any, kind: str) -> Any:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            inside = world()
            return real(*args, **kwargs) if inside is None else _escape(inside, name, kind)

        return stand_in

    def urandom(real: Any) -> Any:
        def stand_in(size: int) -> bytes:
            inside = world()
            if inside is None:
                return real(size)  # type: ignore[no-any-return]
            return _escape(inside, "os.urandom", "random") if strict else inside.rng.randbytes(size)

        return stand_in

    clocks = {
        "time": lambda w: w.runtime.unix_time(), "time_ns": lambda w: int(w.runtime.unix_time() * 1e9),
        "monotonic": lambda w: w.now, "monotonic_ns": lambda w: int(w.now * 1e9),
        "perf_counter": lambda w: w.now, "perf_counter_ns": lambda w: int(w.now * 1e9),
    }
    found: list[tuple[Any, str, Any]] = [(time, name, clock(f"time.{name}", getattr(time, name), read)) for name, read in clocks.items()]
    found += [(time, "sleep", refuse("time.sleep", time.sleep, "time.sleep")),
              (threading.Thread, "start", refuse("threading.Thread.start", threading.Thread.start, "threading.Thread.start")),
              (subprocess.Popen, "__init__", refuse("subprocess.Popen", subprocess.Popen.__init__, "subprocess")),
              (os, "urandom", urandom(os.urandom)), (random, "_urandom", urandom(os.urandom)), (uuid, "uuid1", _uuid1(world, uuid.uuid1)),
              (dt, "datetime", _datetime(world, strict=strict))]
    found += [(socket.socket, name, refuse(f"socket.{name}", getattr(socket.socket, name), "socket"))
              for name in ("connect", "connect_ex", "bind", "listen", "sendto")]
    found += [(socket, name, refuse(f"socket.{name}", getattr(socket, name), "socket")) for name in ("create_connection", "getaddrinfo")]
    found += [(random, name, refuse(f"random.{name}", getattr(random, name), "random") if strict else _drawn(world, name))
              for name in random.__all__ if hasattr(getattr(random, name), "__self__")]
    return found


def _uuid1(world: Callable[[], worlds.World | None], real: Any) -> Any:
    """The real one asks the machine for its address and remembers the last time it was called."""
    def stand_in(*args: Any) -> uuid.UUID:
        inside = world()
        return real(*args) if inside is None else uuid.UUID(bytes=inside.rng.randbytes(16), version=1)

    return stand_in


def _drawn(world: Callable[[], worlds.World | None], name: str) -> Any:
    """A function of the `random` module, drawing from the universe's own seeded source."""
    real = getattr(random, name)

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        inside = world()
        return (real if inside is None else getattr(inside.rng, name))(*args, **kwargs)

    return stand_in


def _datetime(world: Callable[[], worlds.World | None], *, strict: bool) -> Any:
    """`datetime.datetime`, whose `now` is virtual. What it gives out are plain dt."""
    real: Any = dt.datetime

    class Meta(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, real)

    class datetime(real, metaclass=Meta):  # type: ignore[misc]  # noqa: N801
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return real(*args, **kwargs)

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            inside = world()
            if inside is None:
                return real.now(tz)
            return _escape(inside, "datetime.now", "clock") if strict else real.fromtimestamp(inside.runtime.unix_time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(dt.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return cls.now()

    return datetime


def _threads_inline(stack: contextlib.ExitStack, world: Callable[[], worlds.World | None]) -> None:
    """Starlette and FastAPI run plain functions in anyio's threads, Django in asgiref's; here they run in place."""
    anyio, asgiref = sys.modules.get("anyio.to_thread"), sys.modules.get("asgiref.sync")
    if anyio is not None:
        real: Any = anyio.run_sync

        async def run_sync(fn: Callable[..., Any], *args: Any, **settings: Any) -> Any:
            return await real(fn, *args, **settings) if world() is None else fn(*args)

        stack.callback(setattr, anyio, "run_sync", real)
        anyio.run_sync = run_sync  # type: ignore[attr-defined]
    if asgiref is not None:
        _asgiref_inline(stack, world, asgiref)


def _asgiref_inline(stack: contextlib.ExitStack, world: Callable[[], worlds.World | None], asgiref: Any) -> None:
    """`sync_to_async` and `async_to_sync`, on which Django's handlers rest, without threads."""
    to_async, to_sync = asgiref.SyncToAsync.__call__, asgiref.AsyncToSync.__call__

    async def call_plain(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await to_async(self, *args, **kwargs) if world() is None else self.func(*args, **kwargs)

    def call_async(self: Any, *args: Any, **kwargs: Any) -> Any:
        inside = world()
        return to_sync(self, *args, **kwargs) if inside is None else run_inline(inside, self.awaitable(*args, **kwargs))

    for holder, real, stand_in in ((asgiref.SyncToAsync, to_async, call_plain), (asgiref.AsyncToSync, to_sync, call_async)):
        stack.callback(setattr, holder, "__call__", real)
        holder.__call__ = stand_in


def _escape(world: worlds.World, name: str, kind: str) -> Any:
    """Raise, and keep it for the report: the program may well swallow it."""
    where = _line()
    said = f"{name} was called inside the explorer, at {where}"
    world.escapes.append(said)
    raise EscapeError(said, do=_INSTEAD[kind], where=where)


def _line() -> str:
    """The line of users' code that did it."""
    frame: FrameType | None = sys._getframe(1)
    last = ""
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith((_OURS, "<frozen")):
            last = last or f"{path}:{frame.f_lineno}"
            if not path.startswith(_STDLIB):
                return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return last


def _users_modules() -> list[Any]:
    """Modules that are neither Python's, nor installed, nor ours."""
    found = []
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        if (path and not path.startswith((_STDLIB, _OURS)) and "site-packages" not in path and not name.startswith("yaoki.")) or name == "__main__":
            found.append(module)
    return found


def _replace_names(module: Any, originals: dict[int, Any], stack: contextlib.ExitStack) -> None:
    for name, value in list(vars(module).items()):
        stand_in = originals.get(id(value))
        if stand_in is not None:
            stack.callback(setattr, module, name, value)
            setattr(module, name, stand_in)
