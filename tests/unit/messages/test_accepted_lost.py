"""Work that the audit of a ledger names as missing is `lost`, and is not any more once it was repaired."""

from __future__ import annotations

import msgspec

from virtual_time import Clock
from yaoki import runtime
from yaoki.ledger import Keeper, Ledger, Rules, repair
from yaoki.ledger.sinks.memory import MemorySink
from yaoki.messages import Messages
from yaoki.messages.accepted import HandlerWork, State, lost_by

RULES = Rules(slo_s=20, beat_every_s=10, seal_every_s=5, hold_s=5, audit_every_s=10, listing_s=1, clock_error_s=1)


class OrderPlaced(msgspec.Struct):
    n: int


async def test_the_audit_of_the_ledger_says_what_was_lost_and_takes_it_back(tmp_path):
    app = Messages("shop", f"sqlite:///{tmp_path}/shop.db")
    async with app, Ledger(f"sqlite:///{tmp_path}/ledger.db", partitions=2) as ledger:
        work = HandlerWork(app, OrderPlaced, handler="elsewhere", is_lost=lost_by(ledger.store))
        clock, sink = Clock(), MemorySink()
        with runtime.use(clock):
            keeper = Keeper(ledger, [sink], RULES)
            for name in ("order-1", "order-2"):
                assert await work.submit(name, b'{"n": 1}')
                async with ledger.tx() as tx:
                    await tx.append(name, {"n": 1})
            for _ in range(12):
                await keeper.turn()
                clock.now += 5
            assert [(await work.look(name)).state for name in ("order-1", "order-2")] == [State.QUEUED] * 2
            del sink.contents["order-1", 1]
            await keeper.watches[0].look(whole=True)
            assert [(await work.look(name)).state for name in ("order-1", "order-2")] == [State.LOST, State.QUEUED]
            await repair(keeper.watches[0])
            assert [(await work.look(name)).state for name in ("order-1", "order-2")] == [State.QUEUED] * 2
