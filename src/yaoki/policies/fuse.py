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

A plain function's parameters are repeated (`def call(date, *, seats=...)`), because `*args, **kwargs` alone costs as much as
two policies. The text consists of the library's own constants and of such parameter names; settings, defaults and user
functions come in as closure variables. Equal shapes share one code object. Tracebacks show the lines; `source(...)`
prints them.
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
from types import FunctionType
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



class Parameters(NamedTuple):
    """How the fused function takes its arguments, and how it hands them on (`ARGS` in a shell). `defaults`: by name."""

    taken: str = "*args, **kwargs"
    given: str = "*args, **kwargs"
    defaults: dict[str, object] = {}  # noqa: RUF012 - never changed


ANY = Parameters()


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
    run = []
    for index, policy in enumerate(policies):
        here = site._replace(outer=tuple(policies[:index][::-1]), inner=tuple(policies[index + 1:]))
        if shell := policy.shell(here):
            run.append(_Part(policy, shell, here))
    return _text(run, site, ANY, nested=False)[0]


# ── fusing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def fuse(policies: Sequence[Policy], fn: Code | None, site: Site) -> Code:
    """One callable for `policies` around `fn`; for shapes other than "function" `fn` is None and comes with the call."""
    run: list[_Part] = []
    inner = fn
    parameters = _parameters(fn)
    for index, policy in reversed(list(enumerate(policies))):
        here = site._replace(outer=tuple(policies[:index][::-1]), inner=tuple(policies[index + 1:]))
        shell = policy.shell(here)
        if shell is not None:
            run.insert(0, _Part(policy, shell, here))
            continue
        if run or inner is None:
            inner, run = _compile(run, inner, site, parameters), []
        inner = policy.wrap(inner, here)
        parameters = ANY
    # Always a new function in the end: what is decorated must not be changed by taking on a name and a docstring.
    return _compile(run, inner, site, parameters)


class _Part(NamedTuple):
    policy: Policy
    shell: str
    site: Site


def _compile(run: list[_Part], inner: Code | None, site: Site, parameters: Parameters) -> Code:
    text, bound = _text(run, site, parameters, nested=site.shape == "call" and inner is not None)
    return cast("Code", _maker(text)(inner, **bound))


@functools.lru_cache(maxsize=512)
def _maker(text: str) -> Code:
    """The compiled `make`, shared by every function of this shape."""
    filename = f"<yaoki fused {hash(text) & 0xFFFF_FFFF:08x}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {}
    exec(compile(text, filename, "exec", dont_inherit=True), _GLOBALS, namespace)  # noqa: S102 - see the module: no foreign text
    return cast("Code", namespace["make"])


def _text(run: list[_Part], site: Site, parameters: Parameters, *, nested: bool) -> tuple[str, dict[str, object]]:
    """The module's text, and the closure variables that it wants."""
    bound: dict[str, object] = {}
    shells = [_private(part.shell, index) for index, part in enumerate(run)]
    for index, part in enumerate(run):
        names = {f"{name}_{index}": value for name, value in part.policy.bind(part.site).items()}
        bound.update({name: value for name, value in names.items() if _mentions(shells[index], name)})
    if _clashes(parameters.given, tuple(shells)):
        parameters = ANY
    bound.update(parameters.defaults)
    body = _shared(tuple(shells), _call(site, nested=nested))
    if site.shape != "block":
        body += "\nreturn result"
    taken = {"function": parameters.taken, "call": f"fn, /, {parameters.taken}", "block": ""}[site.shape]
    head = ", ".join(["inner" if nested else "fn" if site.shape == "function" else "_", *bound])
    text = (f"def make({head}):\n    {'async ' if site.is_async else ''}def call({taken}):\n"
            f"{textwrap.indent(body, ' ' * 8)}\n    return call\n")
    return text.replace("AWAIT ", "await " if site.is_async else "").replace("ARGS", parameters.given), bound


def _call(site: Site, *, nested: bool) -> str:
    """The innermost line."""
    if site.shape == "block":
        return "result = yield"
    return "result = AWAIT inner(fn, ARGS)" if nested else "result = AWAIT fn(ARGS)"


@functools.lru_cache(maxsize=512)
def _mentions(shell: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", shell) is not None


# Cached, like the text that is compiled: a program that makes a service for every client or test makes the same text again.
@functools.lru_cache(maxsize=512)
def _shared(shells: tuple[str, ...], call: str) -> str:
    """Nest the shells around `call`, and give them the shared names that they use (`now`, `clock`, `rt`, `scope`, `attempts`)."""
    everything = "\n".join(shells)
    reads_now = re.search(r"\bnow\b(?! = )", everything)
    assigns_scope = re.search(r"\bscope = ", everything)
    if assigns_scope:
        # The callee must see a scope that was changed. Written at the innermost place it is written once an attempt.
        call = (f"if scope is ambient:\n    {call}\nelse:\n    token = scope_set(scope)\n    try:\n        {call}\n"
                "    finally:\n        scope_reset(token)")
    body = call
    for shell in reversed(shells):
        body = _nest(shell, body)
    head = ""
    if reads_now:
        head = "rt = current_runtime()\nnow = rt.monotonic()\n"
        body = re.sub(r"\bclock\(\)", "rt.monotonic()", body)
    else:
        # Only rare lines ask for the time: they may as well ask the runtime themselves.
        body = re.sub(r"^ *now = clock\(\)\n", "", body, flags=re.MULTILINE)
        body = re.sub(r"\bclock\(\)", "rt.monotonic()", body)
        body = re.sub(r"\brt\b", "current_runtime()", body)
    if assigns_scope:
        head += "scope = ambient = scope_get()\n"
    else:
        body = re.sub(r"\bscope\b", "scope_get()", body)
    if re.search(r"\battempts\b(?! = )", everything):
        head += "attempts = 1\n"
    return head + body


# ── parameters ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _parameters(fn: Any) -> Parameters:
    """The parameters of a plain function, from its own code (not from what it claims to wrap)."""
    if type(fn) is not FunctionType:
        return ANY
    code = fn.__code__
    if code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
        return ANY
    positional = code.co_varnames[:code.co_argcount]
    keywords = code.co_varnames[code.co_argcount:code.co_argcount + code.co_kwonlyargcount]
    values = dict(zip(positional[len(positional) - len(fn.__defaults__ or ()):], fn.__defaults__ or (), strict=True))
    values.update(fn.__kwdefaults__ or {})
    if not all(name.isidentifier() for name in (*positional, *keywords)):
        return ANY
    taken = [f"{name}=default_{name}" if name in values else name for name in positional]
    if code.co_posonlyargcount:
        taken.insert(code.co_posonlyargcount, "/")
    if keywords:
        taken += ["*", *(f"{name}=default_{name}" if name in values else name for name in keywords)]
    given = [*positional, *(f"{name}={name}" for name in keywords)]
    return Parameters(", ".join(taken), ", ".join(given), {f"default_{name}": value for name, value in values.items()})


_SHARED = {"now", "clock", "rt", "scope", "ambient", "attempts", "result", "fn", "inner", "token", "call", "make", "_", *_GLOBALS}


@functools.lru_cache(maxsize=512)
def _clashes(given: str, shells: tuple[str, ...]) -> bool:
    """Would a parameter's name mean something else in the text?"""
    names = set(re.findall(r"\w+", given)) - {"args", "kwargs"}
    used = {name for shell in shells for name in re.findall(r"\b[a-z_]\w*", shell)}
    return bool(names & (used | _SHARED))


@functools.lru_cache(maxsize=512)
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
