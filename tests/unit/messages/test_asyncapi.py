"""The AsyncAPI document says what is on the wire: real messages fit it, others do not, and nothing in it leads nowhere."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import jsonschema
import msgspec
import pydantic
import pytest

from yaoki.errors import ConfigError
from yaoki.messages import Messages, event, to_cloudevent
from yaoki.messages.choreography.asyncapi import asyncapi
from yaoki.messages.compose import compose
from yaoki.messages.handlers import Handler


class Room(msgspec.Struct):
    number: int


class Reserved(msgspec.Struct):
    order: str
    rooms: list[Room]
    until: dt.date | None = None


class Guest(pydantic.BaseModel):
    name: str


class Arrived(pydantic.BaseModel):
    guests: list[Guest]


@event(name="order/placed v2", version=2, upcasts={1: lambda old: old})
@dataclass
class Placed:
    order: str


def hotel(**settings: object) -> Messages:
    app = Messages("hotel", "sqlite:///unused.db", **settings)

    @app.on(Placed, emits=Reserved, within=30, undo=Arrived)
    async def reserve(placed): ...

    @app.on(Arrived)
    async def welcome(arrived): ...

    return app


PAYLOADS = [Placed("42"), Reserved("42", [Room(7)], dt.date(2026, 11, 21)), Arrived(guests=[Guest(name="ana")])]


def message_of(document: dict, name: str) -> dict:
    return next(each for each in document["components"]["messages"].values() if each["name"] == name)


def validator(document: dict, name: str) -> jsonschema.Draft202012Validator:
    """Of what travels under this name; references lead into the document."""
    schema = {**message_of(document, name)["payload"], "components": document["components"]}
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda each: type(each).__name__)
def test_what_is_published_fits_the_document_as_it_is_on_the_wire(payload):
    document = msgspec.json.decode(msgspec.json.encode(asyncapi(hotel(), title="Trips")))
    sent = compose(payload, source="desk", key="order-42", due=1e9, reply_to="reply.desk", headers={"tenant": "a"})
    on_the_wire = msgspec.json.decode(to_cloudevent(sent))
    fits = validator(document, sent.type)
    fits.validate(on_the_wire)
    assert message_of(document, sent.type)["contentType"] == document["defaultContentType"] == "application/cloudevents+json"
    for wrong in ({"data": {"order": 1, "guests": 1}}, {"dataversion": 9}, {"type": "Other"}, {"specversion": "0.3"}):
        assert not fits.is_valid({**on_the_wire, **wrong}), wrong
    assert not fits.is_valid(on_the_wire["data"]), "the payload alone is not what is on the wire"


def references(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for inner in value.values() for each in references(inner)]
    return [each for inner in value for each in references(inner)] if isinstance(value, list) else []


def test_every_reference_leads_somewhere_and_every_key_is_allowed():
    document = asyncapi(hotel(), title="Trips")
    found = references(document)
    assert len(found) > 10
    for each in found:
        at = document
        for name in each.removeprefix("#/").split("/"):
            at = at[name]
    for kind in (document["channels"], document["operations"], *document["components"].values()):
        assert all(name and all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in name) for name in kind)


def test_operations_say_who_hears_and_says_what_in_which_time():
    operations = asyncapi(hotel(), title="Trips")["operations"]
    hears, says = operations["hotel.reserve.hears.order_2f_placed_20_v2"], operations["hotel.reserve.says.Reserved"]
    assert (hears["action"], hears["x-undone-by"], hears["x-service"]) == ("receive", "Arrived", "hotel")
    assert (says["action"], says["x-within-seconds"], says["messages"]) == (
        "send", 30, [{"$ref": "#/channels/Reserved/messages/Reserved"}])


class Elsewhere:
    """A broker that says where its types travel."""

    def address(self, type_: str) -> str:
        return f"road.{type_}"


def test_a_channel_is_addressed_as_the_broker_calls_it():
    def address(*apps: Messages) -> str | None:
        return asyncapi(*apps, title="Trips")["channels"]["Reserved"]["address"]

    plain, on_road = hotel(), hotel()
    on_road.broker = Elsewhere()  # type: ignore[assignment]
    assert (address(plain), address(on_road), address(plain, on_road)) == ("Reserved", "road.Reserved", None)


def test_two_versions_of_one_event_are_not_exported_as_one():
    other = event(name="Reserved", version=2, upcasts={1: lambda old: old})(type("Other", (msgspec.Struct,), {}))
    odd = Messages("odd", "sqlite:///unused.db")
    odd.add(Handler(fn=print, name="odd", takes={"Reserved": other}))
    with pytest.raises(ConfigError, match="different versions"):
        asyncapi(hotel(), odd, title="Trips")
