"""Four workers, one server, everything fails; an independent checker reads what is left. `--long` for minutes of it.

A failure is repeated with `python tests/torture/campaign.py --seed N --keep`, as far as real processes can be.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from servers import PostgresServer
from torture.campaign import Campaign

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]


async def torture(server: PostgresServer, folder: Path, *, seconds: float, runs: int, seed: int) -> None:
    wrong, figures = await Campaign(server, folder, seconds=seconds, runs=runs, seed=seed).run()
    assert wrong == [], f"seed {seed}: {figures}"
    assert figures["refused batches"] > 0, f"no zombie tried to write, so nothing was tested: {figures}"
    assert figures["taken over"] > 0, figures
    assert figures["doubts settled"] > 0, figures


async def test_no_run_is_lost_or_doubled_while_workers_die_pause_and_lose_a_crashing_server(postgres: PostgresServer, tmp_path: Path):
    await torture(postgres, tmp_path, seconds=6.0, runs=400, seed=3)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
async def test_for_minutes(postgres: PostgresServer, tmp_path: Path, seed: int):
    await torture(postgres, tmp_path, seconds=90.0, runs=6000, seed=seed)
