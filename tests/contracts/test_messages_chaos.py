"""Two services, and a choreographed saga, over a broker that fails in every way it may: each message once, keys in order."""

from __future__ import annotations

import contextlib

import pytest

from contracts.messages_world import Placed, Recorder, service, until
from contracts.test_choreography import SERVICES, Trip, World, made_saga
from yaoki.errors import ConfigError
from yaoki.messages import open_broker
from yaoki.messages.brokers.chaotic import ChaoticBroker
from yaoki.messages.choreography import Monitor, participate, start
from yaoki.saga.records import RunState

ALL_FAULTS = {"refused", "sent in part", "confirmation lost", "not let in", "cut off", "cut off after", "twice", "few", "keys mixed",
              "acknowledgement lost"}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("yaoki.messages.intake.PAUSE_S", 0.01)
    monkeypatch.setattr("yaoki.messages.intake.FETCH_WAIT_S", 0.02)
    monkeypatch.setattr("yaoki.messages.relay.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("yaoki.messages.relay.LONGEST_PAUSE_S", 0.05)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seed", [1, 2])
async def test_each_message_is_handled_once_and_keys_stay_in_order(tmp_path, seed):
    inner = await open_broker(f"sqlite:///{tmp_path}/broker.db")
    broker = ChaoticBroker(inner, share=0.25, seed=seed)
    shop, hotel, saw = service(f"sqlite:///{tmp_path}/shop.db", "shop", broker=broker), service(f"sqlite:///{tmp_path}/hotel.db", "hotel", broker=broker), Recorder()

    @hotel.on(Placed)
    async def take(placed: Placed, message):
        saw.note(message.key, placed.n)

    async with shop, hotel:
        sent = 0
        while sent < 200 or (made_by(broker) != ALL_FAULTS and sent < 20_000):  # how often it is asked, and so may fail, depends on the machine
            await shop.publish(Placed(sent), key=f"k{sent % 7}")
            sent += 1
            if sent % 100 == 0:
                await until(lambda least=sent: len(saw.seen) >= least)
        last = range(sent, sent + 10)  # whatever was still on its way twice comes before these
        for n in last:
            await shop.publish(Placed(n), key=f"k{n % 7}")
        await until(lambda: {*last} <= set(saw.seen))
    await broker.close()
    assert sorted(saw.seen) == list(range(sent + 10))
    assert all(seen == sorted(seen) for seen in saw.by_key.values())
    assert made_by(broker) == ALL_FAULTS, "a fault that was never made proves nothing"


def made_by(broker: ChaoticBroker) -> set[str]:
    return {fault for fault, count in broker.faults.items() if count}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(10, 30))])
async def test_a_choreographed_saga_ends_whole_or_not_at_all(tmp_path, seed):
    world, brokers = World(), []
    world.wrong["payment"] = "decline" if seed % 2 else ""
    saga = made_saga(world)
    async with contextlib.AsyncExitStack() as stack:
        apps = []
        for name in [*SERVICES, "desk"]:
            broker = ChaoticBroker(await open_broker(f"sqlite:///{tmp_path}/broker.db"), share=0.15, seed=seed + len(brokers))
            brokers.append(broker)
            stack.push_async_callback(broker.close)
            apps.append(service(f"sqlite:///{tmp_path}/{name}.db", name, broker=broker))
        for app, steps in zip(apps, SERVICES.values(), strict=False):
            participate(saga, steps=steps, app=app)
        monitor = Monitor(saga, apps[-1])
        for app in apps:
            await stack.enter_async_context(app)
        await start(apps[-1], saga, Trip("ana"), id="trip-1")
        state = await monitor.wait("trip-1", timeout=100)
    if seed % 2:
        assert (state, world.effects) == (RunState.UNDONE, set())
        assert sorted(world.undone) == ["flight", "hotel", "seat"]
    else:
        assert state is RunState.COMPLETED
        assert world.effects == {"hotel", "flight", "seat", "payment", "letter"}
    assert set(world.calls.values()) == {1}, "a step was done twice"
    assert sum(broker.faults.total() for broker in brokers)


def test_a_share_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="share"):
        ChaoticBroker(None, share=1.0, seed=1)
