"""Make one function out of a list of policies.

Nested decorators cost a Python call, an argument tuple and a frame for each policy; measured, four of them cost more
than all they decide. So the shells of neighbouring policies (see `policy.py`) are nested as *text* and compiled once,
when a function is decorated: `retry > breaker > bulkhead` becomes

    def call(*args, **kwargs):
        <before CALL of retry>
            <before CALL of breaker>
                <before CALL of bulkhead>
                    result = fn(*args, **kwargs)
                <after CALL of bulkhead>
        ...
        return result

The text consists of the library's own constants only; settings and user functions come in as closure variables, never
as text. Equal shapes share one code object. Tracebacks show the lines, and `source(...)` prints them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import linecache
import re
import textwrap
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from yaoki import events, runtime
from yaoki.errors import UsageError
from yaoki.policies import scope
from yaoki.policies.policy import Policy, Site

Code = Callable[..., Any]

_GLOBALS: dict[str, Any] = {
    "__name__": "yaoki.policies.fused",
    "CancelledError": CancelledError,
    "current_runtime": runtime.current,
    "scope_get": scope.current.get, "scope_set": scope.current.set, "scope_reset": scope.current.reset,
    "wanted": events.wanted,
}

_SIGNATURE = {"function": "*args, **kwargs", "call": "fn, /, *args, **kwargs", "block": ""}
_INNERMOST = {
    "function": "result = AWAIT fn(*args, **kwargs)",
    "call": "result = AWAIT fn(*args, **kwargs)",
    "inner": "result = AWAIT inner(fn, *args, **kwargs)",
    "block": "result = yield",
}


# ── what kind of callable is it? ─────────────────────────────────────────────────────────────────────────────────────


class Kind(NamedTuple):
    """`is_async`: calling it gives a coroutine. `streams`: it is a generator of either colour."""

    is_async: bool
    streams: bool


def kind_of(fn: Any) -> Kind:
    """Look through partials, methods, callable objects and `__wrapped__`-less decorators to the code that will run."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not (inspect.isroutine(fn) or inspect.isclass(fn)) and callable(fn):
        fn = type(fn).__call__
        while isinstance(fn, functools.partial):
            fn = fn.func
    return Kind(inspect.iscoroutinefunction(fn), inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn))


def _checked(fn: Any) -> Kind:
    if not callable(fn):
        raise UsageError(f"{fn!r} cannot be called.", do="Decorate a function, or pass one to call().")
    kind = kind_of(fn)
    if kind.streams:
        raise UsageError(
            f"{getattr(fn, '__qualname__', fn)!s} is a generator: after its first item a call can be neither repeated nor replaced.",
            do="Put the policy on the function that opens the stream, and read the stream outside it.")
    return kind


# ── the four ways in ─────────────────────────────────────────────────────────────────────────────────────────────────


def decorate(policies: Sequence[Policy], fn: Any, site: Site) -> Any:
    """`fn` inside `policies`, outermost first. A classmethod or staticmethod stays one."""
    if isinstance(fn, classmethod | staticmethod):
        return type(fn)(decorate(policies, fn.__func__, site))
    kind = _checked(fn)
    made = fuse(policies, fn, site._replace(is_async=kind.is_async, shape="function", name=site.name or named(fn)))
    return functools.update_wrapper(made, fn)


def caller(policies: Sequence[Policy], site: Site) -> Code:
    """A function that takes the callee as its first argument."""
    return fuse(policies, None, site._replace(shape="call"))


def block(policies: Sequence[Policy], site: Site) -> Code:
    """A function that makes context managers."""
    for policy in policies:
        if not policy.once or policy.shell(site) is None:
            raise UsageError(f"{policy.kind} cannot guard a block, because a block runs exactly once.",
                             do="Decorate a function with it, or use call().")
    generator = fuse(policies, None, site._replace(shape="block"))
    return contextlib.asynccontextmanager(generator) if site.is_async else contextlib.contextmanager(generator)


def source(policies: Sequence[Policy], site: Site) -> str:
    """The text that a decorated function runs, for the curious and for debugging."""
    return _text([(policy, shell) for policy in policies if (shell := policy.shell(site))], site, nested=False)[0]


# ── fusing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def fuse(policies: Sequence[Policy], fn: Code | None, site: Site) -> Code:
    """One callable for `policies` around `fn`; for shapes other than "function" `fn` is None and comes with the call."""
    run: list[tuple[Policy, str]] = []
    inner = fn
    for policy in reversed(policies):
        shell = policy.shell(site)
        if shell is not None:
            run.insert(0, (policy, shell))
            continue
        if run or inner is None:
            inner, run = _compile(run, inner, site), []
        inner = policy.wrap(inner, site)
    # Always a new function in the end: what is decorated must not be changed by taking on a name and a docstring.
    return _compile(run, inner, site)


def _compile(run: list[tuple[Policy, str]], inner: Code | None, site: Site) -> Code:
    text, bound = _text(run, site, nested=site.shape == "call" and inner is not None)
    return cast("Code", _maker(text)(inner, **bound))


@functools.lru_cache(maxsize=512)
def _maker(text: str) -> Code:
    """The compiled `make`, shared by every function of this shape."""
    filename = f"<yaoki fused {hash(text) & 0xFFFF_FFFF:08x}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {}
    exec(compile(text, filename, "exec", dont_inherit=True), _GLOBALS, namespace)  # noqa: S102 - the library's own constants alone
    return cast("Code", namespace["make"])


def _text(run: list[tuple[Policy, str]], site: Site, *, nested: bool) -> tuple[str, dict[str, object]]:
    """The module's text, and the closure variables that it wants."""
    bound: dict[str, object] = {}
    shells = [_private(shell, index) for index, (_, shell) in enumerate(run)]
    for index, (policy, _) in enumerate(run):
        bound.update({f"{name}_{index}": value for name, value in policy.bind(site).items()})
    body = _INNERMOST["inner" if nested else site.shape]
    everything = "\n".join(shells)
    if re.search(r"^\s*scope = ", everything, re.MULTILINE):
        # Somebody changes the scope: the callee must see it. Set at the innermost place, it costs one write a call.
        body = f"token = scope_set(scope)\ntry:\n    {body}\nfinally:\n    scope_reset(token)"
    for shell in reversed(shells):
        body = _nest(shell, body)
    body = _prologue(everything) + body
    if site.shape != "block":
        body += "\nreturn result"
    is_async = "async " if site.is_async else ""
    parameters = ", ".join(["fn" if site.shape == "function" else "inner", *bound])
    text = (f"def make({parameters}):\n    {is_async}def call({_SIGNATURE[site.shape]}):\n"
            f"{textwrap.indent(body, ' ' * 8)}\n    return call\n")
    return text.replace("AWAIT ", "await " if site.is_async else ""), bound


def _prologue(everything: str) -> str:
    """The shared names that at least one shell uses."""
    lines = []
    uses_now = re.search(r"\bnow\b", everything)
    uses_clock = uses_now or re.search(r"\bclock\b", everything)
    if uses_clock or re.search(r"\brt\b", everything):
        lines.append("rt = current_runtime()")
    if uses_clock:
        lines.append("clock = rt.monotonic")
    if uses_now:
        lines.append("now = clock()")
    if re.search(r"\bscope\b", everything):
        lines.append("scope = scope_get()")
    if re.search(r"\battempts\b", everything):
        lines.append("attempts = 1")
    return "".join(f"{line}\n" for line in lines)


def _private(shell: str, index: int) -> str:
    """Give `$name` a number, so that two policies of a kind do not share variables."""
    return re.sub(r"\$(\w+)", rf"\1_{index}", textwrap.dedent(shell).strip("\n").rstrip())


def _nest(shell: str, inner: str) -> str:
    """Put `inner` where the shell says CALL, at that line's depth."""
    lines = shell.split("\n")
    places = [line for line in lines if line.strip() == "CALL"]
    assert len(places) == 1, f"a shell says CALL once, on a line of its own:\n{shell}"
    depth = places[0][: -len("CALL")]
    return "\n".join(textwrap.indent(inner, depth) if line is places[0] else line for line in lines)


def named(fn: Any) -> str:
    """What messages call `fn`."""
    return cast("str", getattr(fn, "__qualname__", "") or type(fn).__name__)
