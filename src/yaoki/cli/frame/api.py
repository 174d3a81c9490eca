"""The page of every public name: how it is called, its first sentence, and the page that says more. Made from the code itself.

    python -m yaoki.cli.frame.api docs/reference/api.md

A module's public names are its `__all__`, or, where it has none, what it defines without a leading underscore.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_origin


class Module(NamedTuple):
    """A public module: its heading, and the page (seen from docs/reference) that says more."""

    name: str
    about: str
    page: str


MODULES = (
    Module("yaoki", "What most programs need. Each name is imported when it is first used.", ""),
    Module("yaoki.app", "Sagas on a journal: what `yaoki.open` gives.", "sagas.md"),
    Module("yaoki.saga", "Definitions.", "sagas.md"),
    Module("yaoki.saga.participant", "The service's side.", "participant.md"),
    Module("yaoki.service", "One downstream by name.", "service.md"),
    Module("yaoki.policies", "What to do when one call fails.", "policies/index.md"),
    Module("yaoki.policies.shared", "Breakers of a fleet.", "../how-to/share-a-breaker.md"),
    Module("yaoki.messages", "Outbox, inbox, brokers.", "messages.md"),
    Module("yaoki.messages.accepted", "202, and what became of it.", "../how-to/answer-202.md"),
    Module("yaoki.messages.boxes", "What gave up.", "../how-to/redrive-what-gave-up.md"),
    Module("yaoki.messages.brokers", "What a broker is.", "messages.md"),
    Module("yaoki.messages.brokers.chaotic", "A broker for tests, which fails in every way one may.", "messages.md"),
    Module("yaoki.messages.choreography", "Sagas that nobody is in charge of.", "messages.md"),
    Module("yaoki.messages.choreography.obligations", "What must follow what.", "messages.md"),
    Module("yaoki.messages.dynamodb", "An outbox in DynamoDB.", "messages.md"),
    Module("yaoki.ledger", "Histories whose losses are named.", "ledger.md"),
    Module("yaoki.ledger.dynamodb", "A ledger in DynamoDB.", "ledger.md"),
    Module("yaoki.ledger.dynamodb.keeper", "All the work that it and its sinks need.", "../how-to/keep-a-ledger.md"),
    Module("yaoki.ledger.pipelines", "Audits of pipelines that are there already.", "../how-to/audit-a-pipeline.md"),
    Module("yaoki.ledger.sinks.folder", "Files as a sink.", "ledger.md"),
    Module("yaoki.ledger.sinks.s3", "Objects as a sink.", "ledger.md"),
    Module("yaoki.ledger.sinks.postgres", "Rows as a sink.", "ledger.md"),
    Module("yaoki.ledger.sinks.http", "Resources as a sink.", "ledger.md"),
    Module("yaoki.ledger.sinks.jetstream", "A JetStream stream as a sink.", "ledger.md"),
    Module("yaoki.ledger.sinks.broker", "Messages as a sink.", "ledger.md"),
    Module("yaoki.ledger.sinks.memory", "A sink for tests.", "ledger.md"),
    Module("yaoki.explore", "Every fault at every point, in virtual time.", "explore.md"),
    Module("yaoki.explore.mail", "Messages in there.", "explore.md"),
    Module("yaoki.explore.sagas", "Sagas in there.", "explore.md"),
    Module("yaoki.explore.shared", "Workers in there.", "explore.md"),
    Module("yaoki.testing", "What users' tests need.", "../how-to/test-what-happens-on-failure.md"),
    Module("yaoki.runtime", "The only door to clock, randomness, ids and tasks.", "../how-to/test-what-happens-on-failure.md"),
    Module("yaoki.events", "What happens, as frozen records; `events.listen(f)`.", ""),
    Module("yaoki.errors", "Did it happen?", "errors/README.md"),
    Module("yaoki.integrations.httpx", "HTTP by httpx.", "integrations/clients.md"),
    Module("yaoki.integrations.requests", "HTTP by requests.", "integrations/clients.md"),
    Module("yaoki.integrations.aiohttp", "HTTP by aiohttp.", "integrations/clients.md"),
    Module("yaoki.integrations.grpc", "gRPC, the caller's side.", "integrations/clients.md"),
    Module("yaoki.integrations.grpc_server", "gRPC, the server's side.", "integrations/clients.md"),
    Module("yaoki.integrations.aws", "boto3 and aiobotocore.", "integrations/clients.md"),
    Module("yaoki.integrations.redis", "redis-py.", "integrations/clients.md"),
    Module("yaoki.integrations.sql", "Transactions of SQL drivers.", "integrations/clients.md"),
    Module("yaoki.integrations.asgi", "Deadlines and load shedding in ASGI servers.", "policies/load-shedding.md"),
    Module("yaoki.integrations.wsgi", "The same in WSGI servers.", "policies/load-shedding.md"),
    Module("yaoki.integrations.faststream", "Under FastStream.", "../how-to/use-faststream.md"),
    Module("yaoki.integrations.runs", "Runs over HTTP.", "../how-to/let-the-outside-answer.md"),
)

HEAD = """\
# Every public name

What is not here is not public and may change. Durations are seconds, or a `timedelta`. (This page is made by
`python -m yaoki.cli.frame.api docs/reference/api.md`.)
"""

# Longer defaults say nothing on one line.
LONGEST_DEFAULT = 12


def page() -> str:
    """The whole page, in Markdown. What was told under one module is only named under the next."""
    told: dict[int, str] = {}
    return HEAD + "".join(_section(module, told) for module in MODULES)


def names_of(module: ModuleType) -> list[str]:
    """The public names, in the order of the module's `__all__` or of its definitions."""
    given = getattr(module, "__all__", None)
    if given is not None:
        return list(given)
    return [name for name, value in vars(module).items()
            if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__]


def _section(module: Module, told: dict[int, str]) -> str:
    found = importlib.import_module(module.name)
    more = f" [More]({module.page})." if module.page else ""
    rows = []
    for name in names_of(found):
        value = getattr(found, name)
        home = told.setdefault(id(value), module.name)
        rows += [(f"`{name}`", f"as in [{home}](#{home.replace('.', '')})")] if home != module.name else list(_rows(name, value))
    lines = "".join(f"| {call} | {says} |\n" for call, says in rows)
    return f"\n## {module.name}\n\n{module.about}{more}\n\n| | |\n| --- | --- |\n{lines}"


def _rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    yield f"`{name}{_called(value)}`", sentence(value)
    if isinstance(value, ModuleType):
        for inner in names_of(value):
            yield f"&nbsp;&nbsp;`.{inner}{_called(getattr(value, inner))}`", sentence(getattr(value, inner))
    elif inspect.isclass(value) and not issubclass(value, (BaseException, Enum)):
        for attribute, method in _methods(value):
            yield f"&nbsp;&nbsp;`.{attribute}{_called(method)}`", sentence(method)


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that say what they do; those without a docstring are an override's, or nobody's business."""
    for attribute in dict.fromkeys(name for home in kind.__mro__ if home.__module__.startswith("yaoki") for name in vars(home)):
        method = inspect.getattr_static(kind, attribute)
        method = method.__func__ if isinstance(method, (classmethod, staticmethod)) else method
        if not attribute.startswith("_") and (inspect.isfunction(method) or isinstance(method, property)) and method.__doc__ \
                and not _of_the_machinery(kind, attribute):
            yield attribute, method


def _of_the_machinery(kind: type, attribute: str) -> bool:
    """What is there for who writes a policy; `policies/policy.py` tells of it."""
    from yaoki.policies.policy import Policy

    return issubclass(kind, Policy) and kind is not Policy and attribute in vars(Policy)


def _called(value: Any) -> str:
    """`(attempts=3, backoff=..., *, on=None)`, or "" for what is not called."""
    if isinstance(value, property) or not callable(value) or _is_made_by_nobody(value):
        return ""
    try:
        parameters = list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return ""
    if inspect.isfunction(value) and parameters and parameters[0].name in {"self", "cls"}:
        parameters = parameters[1:]
    words: list[str] = []
    for parameter in parameters:
        if parameter.name.startswith("_"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words and not any(word.startswith("*") for word in words):
            words.append("*")
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        words.append(star + parameter.name + _default(parameter))
    return f"({', '.join(words)})"


def _is_made_by_nobody(value: Any) -> bool:
    """Errors are all made alike, enumerations are there, and of protocols and aliases there are no objects."""
    return get_origin(value) is not None or (isinstance(value, type) and (issubclass(value, (BaseException, Enum))
                                                                          or getattr(value, "_is_protocol", False)))


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is inspect.Parameter.empty:
        return ""
    plain = value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, Enum))
    shown = repr(value) if plain else "..."
    return f"={shown if len(shown) <= LONGEST_DEFAULT else '...'}"


def sentence(value: Any) -> str:
    """The first sentence of its docstring, on one line of a table."""
    text = inspect.getdoc(value if callable(value) or isinstance(value, (property, ModuleType)) else type(value)) or ""
    if get_origin(value) is not None:
        text = f"A type: `{re.sub(r'[a-z_]+[.]', '', str(value))}`."
    first = re.split(r"(?<=[.!?])\s|\n\s*\n|:\n", " ".join(text.split("\n\n")[0].split()) + " ", maxsplit=1)[0].strip()
    return first.rstrip(":").replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), "utf-8")
