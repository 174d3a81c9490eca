"""Registers and locks, the same on every journal."""

from __future__ import annotations

import asyncio
from math import inf

from contracts.journals import Place
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.journal.port import Append, Journal, NewRun
from yaoki.saga.journal.registers import of_run
from yaoki.saga.records import RunState


async def started(journal: Journal, *ids: str) -> list[int]:
    return [(await journal.create(NewRun(each, "trip", "hash", b"{}", at=1.0))).header.no for each in ids]


async def end(journal: Journal, no: int) -> None:
    await journal.append(Append(no, 0, (), RunState.COMPLETED, b"null", at=2.0))


async def test_a_register_keeps_its_last_value_over_a_restart(place: Place, journal: Journal):
    assert await journal.write_register("run-1", "step", b"1")
    assert await journal.write_register("run-1", "step", b"2")
    assert await journal.write_register("run-2", "step", b"3")
    await journal.close()
    again = place()
    await again.open()
    assert {name: found.data for name, found in (await again.registers("run-1")).items()} == {"step": b"2"}
    await again.drop_registers("run-1")
    assert await again.registers("run-1") == {}
    assert set(await again.registers("run-2")) == {"step"}
    await again.close()


async def test_who_was_fenced_does_not_overwrite_a_register(journal: Journal):
    assert await journal.write_register("run", "step", b"new", fence=2)
    assert not await journal.write_register("run", "step", b"old", fence=1)
    assert await journal.write_register("run", "step", b"newer", fence=2)
    assert (await journal.registers("run"))["step"].data == b"newer"


async def test_of_those_who_swap_at_once_one_succeeds(journal: Journal):
    assert await journal.swap_register("s", "x", None, b"0")
    assert not await journal.swap_register("s", "x", None, b"1")
    done = await asyncio.gather(*[journal.swap_register("s", "x", b"0", b"%d" % n) for n in range(1, 9)])
    assert sum(done) == 1
    now = (await journal.registers("s"))["x"].data
    assert now == b"%d" % (done.index(True) + 1)
    assert not await journal.swap_register("s", "x", b"0", None)
    assert await journal.swap_register("s", "x", now, None)
    assert await journal.registers("s") == {}


async def test_a_key_is_held_by_the_first_and_goes_to_the_next_when_its_run_has_ended(journal: Journal):
    a, b, _ = await started(journal, "a", "b", "c")
    assert [await journal.claim_lock(each, "seat") for each in ("a", "b", "c", "a", "b")] == ["a"] * 5
    assert await journal.claim_lock("c", "room") == "c"
    assert [(claim.key, claim.run, claim.holds) for claim in await journal.claims()] == [
        ("room", "c", True), ("seat", "a", True), ("seat", "b", False), ("seat", "c", False)]
    assert not [asked for asked in await journal.requests() if asked.kind == "wake"]
    await end(journal, a)
    assert (await journal.claims())[1].run == "b", "the end itself has freed it"
    assert await journal.settle_locks("a")
    assert [(asked.run, asked.kind) for asked in await journal.requests()] == [("b", "wake")]
    await end(journal, b)
    assert await journal.claim_lock("c", "seat") == "c"


async def test_what_nobody_swept_up_is_swept_up_by_the_next_claim_or_sweep_and_the_first_is_woken(journal: Journal):
    a, b, c, _ = await started(journal, "a", "b", "c", "d")
    for each in ("a", "b", "c"):
        await journal.claim_lock(each, "seat")
    await journal.append(Append(b, 0, (), at=2.0, due_at=inf))  # b is parked
    await end(journal, a)
    assert await journal.claim_lock("d", "seat") == "b"
    assert await journal.take_one("b") is not None
    assert ("b", "wake") in [(asked.run, asked.kind) for asked in await journal.requests()]
    await end(journal, b)
    await end(journal, c)
    assert await journal.settle_locks()
    assert ("d", "wake") in [(asked.run, asked.kind) for asked in await journal.requests()]
    assert [claim.run for claim in await journal.claims()] == ["d"]
    assert not await journal.settle_locks()


async def test_a_run_that_gives_up_waiting_leaves_the_queue(journal: Journal):
    _, b, _ = await started(journal, "a", "b", "c")
    for each in ("a", "b", "c"):
        await journal.claim_lock(each, "seat")
    await end(journal, b)
    await journal.settle_locks("b")
    assert [(claim.run, claim.holds) for claim in await journal.claims()] == [("a", True), ("c", False)]


async def test_registers_of_runs_that_have_ended_are_swept_up_and_no_others(journal: Journal):
    ended, _ = await started(journal, "a", "tokens")
    for scope in (of_run("a"), of_run("tokens"), of_run("never"), "tokens"):
        await journal.write_register(scope, "x", b"1")
    await end(journal, ended)
    await journal.sweep_registers()
    left = [scope for scope in (of_run("a"), of_run("never"), of_run("tokens"), "tokens") if await journal.registers(scope)]
    assert left == [of_run("tokens"), "tokens"] or isinstance(journal, MemoryJournal)  # in memory, who ends a run drops them
    assert await journal.registers("tokens")
