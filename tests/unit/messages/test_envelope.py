"""Messages as CloudEvents, payloads with versions, shares of partitions, and what becomes of failures."""

from __future__ import annotations

import base64
import dataclasses
from random import Random

import hypothesis.strategies as st
import msgspec
import pydantic
import pytest
from hypothesis import given

from yaoki.errors import (
    BreakerOpenError,
    ConfigError,
    DeclinedError,
    DefinitionError,
    DurabilityError,
    InputError,
    NewerVersionError,
)
from yaoki.messages import Message, Retries, event, from_cloudevent, to_cloudevent
from yaoki.messages.brokers.port import check_durability
from yaoki.messages.compose import compose
from yaoki.messages.envelope import PARTS, UNREADABLE, check_headers, message_of, meta_of, received
from yaoki.messages.handlers import handler_of
from yaoki.messages.schema import decode, encode, schema_of
from yaoki.messages.store.port import Durability, Entry
from yaoki.messages.store.shares import Owned, plan
from yaoki.messages.verdict import HISTORY, after_failure

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
MESSAGES = st.builds(
    Message, id=TEXT, source=TEXT, type=TEXT, key=TEXT, version=st.integers(1, 9), correlation=TEXT, cause=TEXT,
    reply_to=TEXT, traceparent=TEXT, data=st.sampled_from([b"null", b'{"a":[1,2]}', b'"x"']),
    time=st.sampled_from([0.0, 1.5, 1795290289.25]), due=st.sampled_from([0.0, 1795290289.5]),
    headers=st.dictionaries(st.from_regex(r"x[a-z0-9]{1,10}", fullmatch=True), TEXT, max_size=3))


@given(MESSAGES)
def test_a_message_comes_back_from_its_cloudevent(message):
    assert from_cloudevent(to_cloudevent(message)) == message


@given(MESSAGES)
def test_a_message_comes_back_from_its_columns(message):
    columns = {name: getattr(message, name) for name in ("id", "source", "type", "data", "key", "version", "time", "due")}
    assert message_of(meta=meta_of(message), **columns) == message


@given(TEXT)
def test_partitions_are_few_and_the_same_for_a_key(key):
    one, other = Message(id="1", source="s", type="T", key=key), Message(id="1", source="x", type="U", key=key)
    assert 0 <= one.part == other.part < PARTS


def test_the_partition_of_a_key_never_changes():
    assert [Message(id="1", source="s", type="T", key=key).part for key in ("a", "order-42", "ключ")] == [3, 14, 10]


def test_a_foreign_cloudevent_is_read_and_its_extensions_kept():
    message = from_cloudevent(b'{"specversion":"1.0","id":"1","source":"/shop","type":"com.example.x","data_base64":"eyJhIjoxfQ==",'
                              b'"tenant":"t1","time":"2026-11-21T19:00:00Z"}')
    assert (message.data, message.headers, message.source) == (b'{"a":1}', {"tenant": "t1"}, "/shop")


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"id":1,"source":"s","type":"t"}', b"\xff", b"[" * 100_000,
                                  b'{"id":"1","source":"s","type":"t","time":"yesterday"}'])
def test_what_is_no_cloudevent_is_refused(body):
    with pytest.raises(InputError):
        from_cloudevent(body)


@pytest.mark.parametrize("more", [
    {"partitionkey": "a\0b"}, {"id": "1\0"}, {"id": "x" * 2_001}, {"partitionkey": "ключ" * 500}, {"dataversion": 2**31}, {"dataversion": -1},
    {"data_base64": "abc"}, {"data_base64": "*"}, {"time": "0001-01-01T00:00:00"}], ids=str)
def test_what_a_store_could_not_take_is_kept_as_it_came_and_stops_no_reader(more):
    body = msgspec.json.encode({"specversion": "1.0", "id": "1", "source": "s", "type": "t", **more})
    message = received(body, "nats")
    assert (message.type, message.source, len(message.id)) == (UNREADABLE, "nats", 32)
    assert base64.b64decode(msgspec.json.decode(message.data)["body"]) == body


def test_a_key_that_cannot_travel_is_refused_when_it_is_published():
    for key in ("a\0b", "x" * 2_001):
        with pytest.raises(InputError):
            compose({}, source="shop", key=key)
    assert compose({}, source="shop", key="ключ" * 250).key == "ключ" * 250


@pytest.mark.parametrize("headers", [{"Upper": "x"}, {"with-dash": "x"}, {"id": "x"}, {"data": "x"}, {"n": 1}])
def test_headers_that_cannot_travel_are_refused(headers):
    with pytest.raises(InputError, match="cannot travel"):
        check_headers(headers)


class Struct(msgspec.Struct):
    n: int


@dataclasses.dataclass
class Data:
    n: int


class Model(pydantic.BaseModel):
    n: int


@pytest.mark.parametrize("cls", [Struct, Data, Model])
def test_payloads_of_every_kind_come_back(cls):
    message = Message(id="1", source="s", type=schema_of(cls).name, data=encode(cls(n=3)))
    assert decode(cls, message) == cls(n=3)
    with pytest.raises(InputError, match="is not a"):
        decode(cls, Message(id="1", source="s", type=cls.__name__, data=b'{"n":"x"}'))


def test_what_json_cannot_say_is_refused_with_its_name():
    with pytest.raises(InputError, match="Struct cannot be published"):
        encode(Struct(n=object()))


def test_versions_go_up_one_by_one_and_never_down():
    up = event(name="N", version=3, upcasts={1: lambda old: {"m": old["n"]}, 2: lambda old: {"n": old["m"] + 1}})(
        type("N", (Struct,), {}))
    assert decode(up, Message(id="1", source="s", type="N", version=1, data=b'{"n":1}')).n == 2
    assert decode(up, Message(id="1", source="s", type="N", version=2, data=b'{"m":5}')).n == 6
    with pytest.raises(NewerVersionError):
        decode(up, Message(id="1", source="s", type="N", version=4, data=b"{}"))
    with pytest.raises(InputError, match="is not a"):
        decode(up, Message(id="1", source="s", type="N", version=1, data=b"{}"))
    with pytest.raises(DefinitionError, match="one step at a time"):
        event(version=3, upcasts={1: lambda old: old})


def test_a_handler_is_read_off_its_function():
    def take(order: Struct, tx, message): ...

    handler = handler_of(take, (Struct | Data,), name="", settings={})
    assert (handler.name, set(handler.takes), handler.transactional, handler.wants_message) == ("take", {"Struct", "Data"}, True, True)


# ── shares ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(workers=st.integers(1, 20), rounds=st.just(6), dead=st.integers(0, 5))
def test_partitions_are_shared_out_fairly_and_each_has_one_owner(workers, rounds, dead):
    owned: dict[int, Owned] = {}
    names = [f"w{n}" for n in range(workers)]
    for _ in range(rounds):
        for me in names:
            share = plan(owned, names, me, ttl_s=15.0)
            for part in share.surplus:
                owned[part] = Owned("", -1.0)
            for part in share.take:
                assert part not in owned or owned[part].left_s < 0 or not owned[part].owner
                owned[part] = Owned(me, 15.0)
    held = [sum(each.owner == me for each in owned.values()) for me in names]
    assert sum(held) == PARTS
    assert max(held) <= -(-PARTS // workers)


def test_a_silent_owners_partitions_are_looked_at_when_its_lease_ends():
    share = plan({0: Owned("other", 0.5)}, ["me"], "me", ttl_s=15.0)
    assert 0 not in share.take
    assert share.check_in_s == pytest.approx(0.52)
    assert 0 in plan({0: Owned("other", -0.01)}, ["me"], "me", ttl_s=15.0).take


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def failed(error, *, attempts=0, retries=None, before=None):
    entry = Entry((0, 1), 0, Message(id="1", source="s", type="T", key="k"), attempts)
    return after_failure(entry, before, error, retries or Retries(attempts=3), now=100.0, rng=Random(1))


def test_attempts_run_out_into_quarantine_or_dead():
    assert (failed(OSError()).state, failed(OSError()).attempts) == ("retry", 1)
    assert failed(OSError(), attempts=2).state == "quarantined"
    assert failed(OSError(), attempts=2, retries=Retries(attempts=3, poison="skip")).state == "dead"


def test_what_cannot_succeed_is_not_tried_again():
    assert failed(DeclinedError("no")).state == "quarantined"
    assert failed(InputError("garbled")).state == "quarantined"


def test_refusals_and_newer_versions_wait_without_being_counted():
    refused = failed(BreakerOpenError("open", retry_after=77.0), attempts=2)
    assert (refused.state, refused.attempts, refused.due_at) == ("retry", 2, 177.0)
    newer = failed(NewerVersionError("v9"), attempts=2)
    assert (newer.state, newer.due_at) == ("retry", 400.0)


def test_pauses_double_up_to_the_cap_and_are_spread():
    retries = Retries(attempts=9, first_s=1.0, cap_s=10.0)
    for attempt, full in [(1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (5000, 10.0)]:
        drawn = {retries.pause_s(attempt, Random(seed)) for seed in range(50)}
        assert all(0.75 * full <= each <= full for each in drawn)
        assert len(drawn) > 40


def test_the_history_is_kept_and_bounded():
    held = None
    for attempt in range(20):
        held = failed(OSError(str(attempt)), before=held, retries=Retries(attempts=99))
    assert [error for _, error in held.history] == [f"OSError: {n}" for n in range(19 - HISTORY, 19)]
    assert held.first_at == 100.0


# ── durability ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Weak:
    name = "weak"
    durability = Durability(survives="process", kill="nothing", power_cut="everything of the last two minutes")


def test_a_broker_that_gives_less_than_is_asked_is_refused_and_otherwise_warned_of(caplog):
    with pytest.raises(DurabilityError, match="two minutes"):
        check_durability(Weak(), "power")
    with pytest.raises(ConfigError, match="not a class"):
        check_durability(Weak(), "eternal")
    check_durability(Weak(), "process")
    assert not caplog.records
    check_durability(Weak(), "")
    assert "two minutes" in caplog.text
