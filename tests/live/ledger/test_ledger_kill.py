"""A process that writes, seals, delivers and audits is killed with -9 again and again: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from yaoki.ledger import Keeper, Ledger, Rules
from yaoki.ledger.notes import load_findings
from yaoki.ledger.sinks.folder import FolderSink

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]

PROGRAM = """
import asyncio, sys
from yaoki.ledger import Keeper, Ledger, Rules
from yaoki.ledger.sinks.folder import FolderSink

async def main():
    rules = Rules(slo_s=0.2, beat_every_s=0.1, seal_every_s=0.05, hold_s=0, audit_every_s=0.3, listing_s=1, clock_error_s=0.1)
    async with Ledger(sys.argv[1], partitions=2) as ledger:
        keeper = Keeper(ledger, [FolderSink("archive")], rules, owner="keeper")  # the same owner takes its leases up at once
        n = 0
        while True:
            async with ledger.tx() as tx:
                versions = await tx.append_many([(f"k{(n + i) % 5}", {"n": n + i}) for i in range(4)])
            for i, version in enumerate(versions):
                print(f"k{(n + i) % 5} {version}", flush=True)
            n += 4
            await keeper.turn()

asyncio.run(main())
"""


def run_and_kill(folder: Path, url: str, seconds: float) -> set[tuple[str, int]]:
    """What it acknowledged before it died."""
    with (folder / "said").open("wb") as said, (folder / "errors").open("ab") as errors:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, url], cwd=folder, stdout=said, stderr=errors)
        until = time.monotonic() + 120
        while (folder / "said").read_bytes().count(b"\n") < 4:  # what it has committed first
            assert time.monotonic() < until, (folder / "errors").read_text()
            time.sleep(0.02)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    lines = (folder / "said").read_bytes().split(b"\n")[:-1]  # the last may be half a line
    return {(line.split()[0].decode(), int(line.split()[1])) for line in lines}


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres") if database == "postgres" else f"sqlite:///{tmp_path}/ledger.db"
    rng = random.Random(11)
    acknowledged: set[tuple[str, int]] = set()
    for _ in range(4):
        acknowledged |= await asyncio.to_thread(run_and_kill, tmp_path, url, rng.uniform(0.05, 0.6))
    assert len(acknowledged) > 10
    assert (tmp_path / "errors").read_text() == ""
    sink = FolderSink(tmp_path / "archive")
    async with Ledger(url) as ledger:
        keeper = Keeper(ledger, [sink], Rules(slo_s=0.01, clock_error_s=0), owner="keeper")
        await ledger.seal("keeper")
        await keeper.deliverers[0].deliver()
        await asyncio.sleep(0.1)
        await keeper.watches[0].look(whole=True)
        assert await ledger.verify() == []
        for key, version in await ledger.keys():
            assert [each.version for each in await ledger.history(key)] == list(range(1, version + 1))
        assert [each for each in await load_findings(ledger.store) if each.version >= 0] == []
    arrived = {(each.key, each.version) async for batch in sink.listing() for each in batch}
    assert acknowledged <= arrived
    assert sink.foreign.count == 0
