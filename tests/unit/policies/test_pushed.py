"""Pushed: readable while its source is down, across restarts, until it is too old; and constant work."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtual_time import Clock, run
from yaoki import events, runtime
from yaoki.errors import ConfigError, StaleDataError, UsageError
from yaoki.policies.pushed import Pushed
from yaoki.policies.staleness import Copy

Prices = dict[str, int]


class Source:
    """A source that can be down. Remembers when it was asked."""

    def __init__(self, clock):
        self.clock = clock
        self.down = False
        self.version = 0
        self.asked = []

    async def __call__(self):
        self.asked.append(self.clock.now)
        if self.down:
            raise ConnectionRefusedError("down")
        self.version += 1
        return {"LIS": self.version}


def names(seen):
    return [type(each).__name__ for each in seen]


def test_it_is_read_while_the_source_is_down_until_it_is_too_old():
    clock, seen = Clock(), []
    source = Source(clock)
    prices = Pushed("prices", Prices, poll=source, every=30, valid_for=3600, alarm_after=300)

    async def main():
        async with prices:
            assert prices.get() == {"LIS": 1}
            await asyncio.sleep(100)
            source.down = True
            held = prices.get()
            await asyncio.sleep(3000)
            assert prices.get() == held
            assert names(seen).count("PushedStale") == 1  # told once, hours before it matters
            await asyncio.sleep(900)
            with pytest.raises(StaleDataError) as stale:
                prices.get()
            assert stale.value.age_s > 3600
            source.down = False
            await asyncio.sleep(31)
            assert prices.get()["LIS"] == source.version

    with events.listen(seen.append):
        run(main(), clock=clock)


def test_work_is_constant_whether_the_source_is_up_or_down():
    clock = Clock()
    source = Source(clock)

    async def main():
        async with Pushed("prices", Prices, poll=source, every=30):
            await asyncio.sleep(1500)
            source.down = True
            await asyncio.sleep(1500)

    run(main(), clock=clock)
    gaps = [later - earlier for earlier, later in pairwise(source.asked[1:])]
    assert gaps == pytest.approx([30.0] * len(gaps))
    assert len(gaps) >= 97


def test_a_fleet_restarted_together_does_not_fetch_together():
    firsts = []
    for seed in range(200):
        clock = Clock(seed=seed)
        source = Source(clock)

        async def main(source=source):
            async with Pushed("prices", Prices, poll=source, every=30):
                await asyncio.sleep(31)

        run(main(), clock=clock)
        firsts.append(source.asked[1] - source.asked[0])
    assert sum(firsts) / len(firsts) == pytest.approx(15, abs=2)
    assert max(firsts) <= 30


def test_it_survives_a_restart_during_an_outage(tmp_path):
    path, clock = tmp_path / "prices.json", Clock()
    source = Source(clock)

    async def before():
        async with Pushed("prices", Prices, poll=source, path=path):
            pass

    async def after():
        async with Pushed("prices", Prices, poll=source, path=path, valid_for=3600) as prices:
            assert prices.get() == {"LIS": 1}
            assert prices.age_s == pytest.approx(1800, abs=1)
            await asyncio.sleep(1900)
            with pytest.raises(StaleDataError):
                prices.get()

    run(before(), clock=clock)
    source.down = True
    clock.now += 1800
    run(after(), clock=clock)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["prices.json"]


@pytest.mark.parametrize("text", [b"", b"{", b'{"at": 1}', b'{"at": 1, "data": {"LIS": "dear"}}', b'{"at":1,"data":{},"x":1}', b"\x80\x04."])
def test_a_saved_copy_that_is_damaged_or_of_another_type_is_told_and_not_used(tmp_path, text):
    path, clock, seen = tmp_path / "prices.json", Clock(), []
    path.write_bytes(text)
    with runtime.use(clock), events.listen(seen.append):
        prices = Pushed("prices", Prices, poll=dict, path=path)
        assert not prices.load()
        with pytest.raises(StaleDataError, match="never fetched"):
            prices.get()
    assert "PushedFailed" in names(seen)


def test_a_write_cut_short_leaves_the_old_copy(tmp_path, monkeypatch):
    path, clock, seen = tmp_path / "prices.json", Clock(), []
    with runtime.use(clock), events.listen(seen.append):
        prices = Pushed("prices", Prices, poll=dict, path=path)
        prices.put({"LIS": 1})
        before = path.read_bytes()
        monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
        prices.put({"LIS": 2})
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["prices.json"]
    assert prices.copy.value == {"LIS": 2}  # in force all the same
    assert names(seen) == ["PushedUpdated", "PushedFailed", "PushedUpdated"]
    assert json.loads(before)["data"] == {"LIS": 1}


def test_what_a_killed_writer_left_is_removed_and_a_write_under_way_is_not(tmp_path):
    old, new = tmp_path / ".prices.json.7.8.new", tmp_path / ".prices.json.9.9.new"
    for each in (old, new):
        each.write_bytes(b"{")
    os.utime(old, (1e9, 1e9))
    Pushed("prices", Prices, poll=dict, path=tmp_path / "prices.json").load()
    assert (old.exists(), new.exists()) == (False, True)


def test_a_subscription_that_ends_is_taken_up_again():
    clock, seen, begun = Clock(), [], []

    async def feed():
        begun.append(clock.now)
        for number in range(3):
            await asyncio.sleep(1)
            yield {"LIS": 10 * len(begun) + number}
        raise ConnectionResetError("cut off")

    async def main():
        async with Pushed("prices", Prices, subscribe=feed, every=20) as prices:
            await asyncio.sleep(3.5)
            assert prices.get() == {"LIS": 12}
            await asyncio.sleep(100)

    with events.listen(seen.append):
        run(main(), clock=clock)
    gaps = [later - earlier for earlier, later in pairwise(begun)]
    assert len(gaps) >= 4
    assert all(13 <= gap <= 23 for gap in gaps)
    assert names(seen).count("PushedFailed") >= 4


@given(st.lists(st.tuples(st.floats(0, 50), st.sampled_from(["put", "late", "look"])), max_size=60))
def test_the_copy_is_always_the_newest_and_the_alarm_comes_once_for_each_staleness(plan):
    copy: Copy[float] = Copy(valid_for_s=60.0, alarm_after_s=20.0)
    now, newest, alarmed = 100.0, float("-inf"), False
    for pause, what in plan:
        now += pause
        if what == "put":
            assert copy.put(now, now)
            newest, alarmed = now, False
        elif what == "late":
            if copy.put(now - 500, now - 500):
                assert now - 500 >= newest
                newest, alarmed = now - 500, False
        else:
            due = now - newest > 20 and not alarmed
            assert copy.alarms(now) is due
            alarmed = alarmed or due
        assert copy.at == newest
        assert copy.is_valid(now) is (now - newest <= 60)


def test_a_plain_program_polls_in_a_thread():
    fetched = threading.Event()
    count = []

    def poll():
        count.append(1)
        if len(count) >= 3:
            fetched.set()
        return {"LIS": len(count)}

    with Pushed("prices", Prices, poll=poll, every=0.002) as prices:
        assert prices.get()["LIS"] >= 1
        assert fetched.wait(100)
    stopped_at = len(count)
    threading.Event().wait(0.02)
    assert len(count) == stopped_at


def test_the_hook_of_an_update_cannot_stop_it():
    clock, seen = Clock(), []
    prices = Pushed("prices", Prices, poll=dict, on_update=lambda _: 1 / 0)
    with runtime.use(clock), events.listen(seen.append):
        prices.put({"LIS": 1})
        assert prices.get() == {"LIS": 1}


@pytest.mark.parametrize(("build", "error"), [
    (lambda: Pushed("x", int), ConfigError), (lambda: Pushed("x", int, poll=int, every=0), ConfigError),
    (lambda: Pushed("x", int, poll=int, valid_for=10, alarm_after=20), ConfigError),
    (lambda: Pushed("x", int, poll=asyncio.sleep).__enter__(), UsageError),
])
def test_bad_settings_are_refused(build, error):
    with pytest.raises(error):
        build()


def test_of_two_copies_that_are_put_at_once_the_newer_one_is_on_disk(tmp_path):
    """From two sources (poll and subscription), in two threads: the older one may come to the disk last."""
    path = tmp_path / "prices.json"
    prices = Pushed("prices", Prices, poll=dict, path=path)
    with prices._saving:
        older = threading.Thread(target=prices.put, args=({"LIS": 1},))
        older.start()
        for _ in range(10_000):
            if prices.copy.value == {"LIS": 1}:
                break
            time.sleep(0.001)
        prices.copy.put({"LIS": 2}, runtime.monotonic())
    older.join()
    assert not path.exists(), "it was replaced before it was saved, and who replaced it saves"
    prices.put({"LIS": 3})
    assert json.loads(path.read_bytes())["data"] == {"LIS": 3}
