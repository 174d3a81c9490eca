"""Four workers, one server, everything fails; an independent checker reads what is left. `--long` for minutes of it.

A failure is repeated with `python tests/torture/campaign.py --seed N --keep`, as far as real processes can be.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from servers import PostgresServer
from torture.campaign import Campaign

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]


MUST_HAPPEN = ("refused batches", "taken over", "doubts settled")


async def torture(server: PostgresServer, folder: Path, *, seconds: float, runs: int, seed: int, rounds: int = 1) -> None:
    """Rounds until each of the rare things has happened: a zombie that tried to write, a takeover, a commit in doubt."""
    seen = dict.fromkeys(MUST_HAPPEN, 0)
    for number in range(rounds):
        place = folder / str(number)
        place.mkdir()
        wrong, figures = await Campaign(server, place, seconds=seconds, runs=runs, seed=seed + 100 * number,
                                        must_happen=("BatchRefused", "DoubtSettled")).run()
        print(figures)
        assert wrong == [], f"seed {seed + 100 * number}: {figures}"
        seen = {name: seen[name] + figures[name] for name in seen}
        if all(seen.values()):
            return
    raise AssertionError(f"not everything happened, so not everything was tested: {seen}")


async def test_no_run_is_lost_or_doubled_while_workers_die_pause_and_lose_a_crashing_server(postgres: PostgresServer, tmp_path: Path):
    await torture(postgres, tmp_path, seconds=6.0, runs=200, seed=3, rounds=4)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
async def test_for_minutes(postgres: PostgresServer, tmp_path: Path, seed: int):
    await torture(postgres, tmp_path, seconds=90.0, runs=6000, seed=seed)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_the_checker_finds_a_fence_that_lets_the_dead_write(postgres: PostgresServer, tmp_path: Path):
    found: list[str] = []
    for number in range(8):  # until a zombie has had something to write when it woke up, which not each one has
        place = tmp_path / str(number)
        place.mkdir()
        wrong, _ = await Campaign(postgres, place, seconds=8.0, runs=300, seed=5 + 100 * number, broken_fence=True).run()
        found = [each for each in wrong if "after its death" in each]
        if found:
            return
    raise AssertionError("no zombie wrote anything, so nothing was tested")
