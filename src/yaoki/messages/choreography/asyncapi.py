"""What services hear and say, as an AsyncAPI 3.0 document: what is on the wire, not only the payloads.

A message on the wire is a CloudEvent in structured JSON (`envelope.to_cloudevent`), so a message's schema here is the
envelope with the payload as its `data`. Who validates what a broker carries against this document finds it to fit
(`tests/unit/messages/test_asyncapi.py` does, with a JSON Schema validator).

Source: AsyncAPI 3.0.0; CloudEvents 1.0.2, JSON format.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from yaoki.errors import ConfigError
from yaoki.messages.app import Messages
from yaoki.messages.choreography.obligations import Duty, duties
from yaoki.messages.schema import schema_of

CONTENT_TYPE = "application/cloudevents+json"
ENVELOPE = "yaoki.CloudEvent"
"""With a dot, as no class has in its name."""
_SCHEMAS = "#/components/schemas/"


def asyncapi(*apps: Messages, title: str, version: str = "1.0.0") -> dict[str, Any]:
    """An AsyncAPI 3.0 document of what these services hear and say, as data to be written as JSON or YAML.

    A channel's address is what the services' broker calls it: a NATS subject, a Redis stream; null where that is known only
    at run time (SQS has a queue for each reader), or where the services have different brokers.

    Raises:
        ConfigError: two classes share a name on the wire and have different versions.
    """
    classes = _classes(apps)
    data, schemas = _schemas(classes)
    return {
        "asyncapi": "3.0.0", "info": {"title": title, "version": version}, "defaultContentType": CONTENT_TYPE,
        "channels": {_key(name): {"address": _address(apps, name), "messages": {_key(name): {"$ref": f"#/components/messages/{_key(name)}"}}}
                     for name in classes},
        "operations": _operations(duties(*apps)),
        "components": {"messages": {_key(name): _message(name, cls, data[name]) for name, cls in classes.items()},
                       "schemas": {ENVELOPE: _envelope(), **schemas}},
    }


def _classes(apps: Iterable[Messages]) -> dict[str, type]:
    """Payload classes by their name on the wire, in the order of names."""
    classes: dict[str, type] = {}
    for app in apps:
        for handler in app.handlers.values():
            for cls in [*handler.takes.values(), *handler.emits, *([handler.undo] if handler.undo else [])]:
                name = schema_of(cls).name
                if schema_of(classes.setdefault(name, cls)) != schema_of(cls):
                    raise ConfigError(f"two classes are called {name!r} on the wire with different versions",
                                      do="let the services agree on one, or give one another name with @event(name=...)")
    return dict(sorted(classes.items()))


def _address(apps: Iterable[Messages], name: str) -> str | None:
    """Where a type travels, if all services say the same."""
    found = set()
    for app in apps:
        says = getattr(app.broker, "address", None) if app.broker is not None else _of_store
        found.add(says(name) if says is not None else None)
    return found.pop() if len(found) == 1 else None


def _of_store(name: str) -> str:
    """In a database that services share a type is a column."""
    return name


def _operations(found: Iterable[Duty]) -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for duty in found:
        box = f"{duty.service}.{duty.handler}"
        for action, verb, names in (("receive", "hears", duty.takes), ("send", "says", duty.emits)):
            operations |= {_key(f"{box}.{verb}.{name}"): _operation(action, _key(name), duty) for name in names}
    return operations


def _operation(action: str, key: str, duty: Duty) -> dict[str, Any]:
    found: dict[str, Any] = {
        "action": action, "channel": {"$ref": f"#/channels/{key}"}, "messages": [{"$ref": f"#/channels/{key}/messages/{key}"}],
        "x-service": duty.service}
    if duty.within_s and action == "send":
        found["x-within-seconds"] = duty.within_s
    if duty.undo and action == "receive":
        found["x-undone-by"] = duty.undo
    return found


def _message(name: str, cls: type, data: dict[str, Any]) -> dict[str, Any]:
    version = schema_of(cls).version
    own = {"type": "object", "required": ["data"], "properties": {
        "type": {"const": name}, "dataversion": {"const": version}, "data": data}}
    return {"name": name, "contentType": CONTENT_TYPE, "correlationId": {"location": "$message.payload#/correlationid"},
            "x-version": version, "payload": {"allOf": [{"$ref": f"{_SCHEMAS}{ENVELOPE}"}, own]}}


def _envelope() -> dict[str, Any]:
    """What every message has around its data. Further extensions are text (`headers`)."""
    text, moment = {"type": "string"}, {"type": "string", "format": "date-time"}
    return {
        "type": "object", "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"}, "id": {**text, "minLength": 1}, "source": {**text, "minLength": 1},
            "type": {**text, "minLength": 1}, "time": moment, "datacontenttype": {"const": "application/json"},
            "dataversion": {"type": "integer", "minimum": 1}, "partitionkey": text, "correlationid": text, "causationid": text,
            "replyto": text, "traceparent": text, "notbefore": moment, "data": {}},
        "additionalProperties": text,
    }


def _schemas(classes: dict[str, type]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The schema of each event's data, and the named ones that these refer to."""
    data: dict[str, dict[str, Any]] = {}
    named: dict[str, Any] = {}
    plain = {name: cls for name, cls in classes.items() if not hasattr(cls, "model_json_schema") and _is_known(cls)}
    # All at once, so that two classes of one name in different modules get names of their own.
    found, components = msgspec.json.schema_components(list(plain.values()), ref_template=_SCHEMAS + "{name}")
    data |= zip(plain, found, strict=True)
    named |= components
    for name, cls in classes.items():
        if hasattr(cls, "model_json_schema"):  # pydantic, without importing it
            data[name] = cls.model_json_schema(ref_template=f"{_SCHEMAS}{_key(name)}.{{model}}")
            named |= {f"{_key(name)}.{inner}": schema for inner, schema in data[name].pop("$defs", {}).items()}
    return {name: data.get(name, {}) for name in classes}, named


def _is_known(cls: type) -> bool:
    """Is it a type with a shape? A payload that is taken as it comes has none."""
    try:
        msgspec.json.schema_components([cls])
    except TypeError:
        return False
    return True


def _key(name: str) -> str:
    """A name as AsyncAPI allows it for what is referred to."""
    return "".join(each if each.isascii() and (each.isalnum() or each in "._-") else f"_{ord(each):x}_" for each in name)
