"""The power goes: what was acknowledged is found on the disk as it was at that instant.

The disk is a file with ext4 in it, mounted by loop. At the cut the process is killed and the file is copied: what the file
system had not written to it by then is gone, as from a machine without power. The copy is mounted, which repairs it as a
restart would. Needs root and a loop device, so it runs with `--long` only.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.messages_world import stored
from yaoki.app import journal_at
from yaoki.messages.envelope import PARTS
from yaoki.saga.records import RunState

pytestmark = [pytest.mark.live, pytest.mark.long]
WORKER = Path(__file__).with_name("power_worker.py")
CUTS = 20


@contextlib.contextmanager
def mounted(disk: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", disk, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def cut(tmp_path: Path, rng: random.Random, *words: str) -> tuple[list[str], Path]:
    """Let a worker write for a while, then cut the power. Gives what it acknowledged, and the disk as it was."""
    disk, copy = tmp_path / "disk", tmp_path / "disk-at-the-cut"
    with disk.open("wb") as file:
        file.truncate(96 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
    with mounted(disk, tmp_path / "running") as folder:
        said = tmp_path / "acknowledged"
        with said.open("wb") as out:
            process = subprocess.Popen([sys.executable, str(WORKER), words[0], str(folder), *words[1:]], stdout=out)
            while not said.stat().st_size:
                time.sleep(0.01)
                assert process.poll() is None
            time.sleep(rng.uniform(0.2, 1.5))
            process.kill()
            shutil.copyfile(disk, copy)
            process.wait()
    return said.read_text().splitlines(keepends=True), copy


def whole(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines if line.endswith("\n")]


def check_whole(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def messages_on(disk: Path, tmp_path: Path) -> set[str]:
    with mounted(disk, tmp_path / "after") as folder:
        check_whole(folder / "broker.db")
        async with stored(f"sqlite:///{folder}/broker.db") as store:
            page = await store.read(None, dict.fromkeys(range(PARTS), (0, 0)), 10**6)
    return {entry.message.id for entry in page.entries}


@pytest.mark.timeout(600)
async def test_the_embedded_broker_has_every_message_that_it_acknowledged(tmp_path):
    rng, acknowledged, lost = random.Random(1), 0, 0
    for _ in range(CUTS):
        lines, disk = cut(tmp_path, rng, "broker")
        names = set(whole(lines))
        acknowledged += len(names)
        lost += len(names - await messages_on(disk, tmp_path))
    print(f"\n{CUTS} power cuts, {acknowledged} messages acknowledged: {lost} lost")
    assert acknowledged > 20 * CUTS
    assert lost == 0


@pytest.mark.timeout(600)
async def test_a_file_that_only_survives_processes_is_seen_losing_messages(tmp_path):
    """Or this cut would be too mild to prove anything."""
    rng, acknowledged, lost = random.Random(2), 0, 0
    for _ in range(5):
        lines, disk = cut(tmp_path, rng, "broker", "durability=process")
        names = set(whole(lines))
        acknowledged += len(names)
        lost += len(names - await messages_on(disk, tmp_path))
    print(f"\n5 power cuts with durability=process, {acknowledged} messages acknowledged: {lost} lost")
    assert lost > 0


@pytest.mark.timeout(600)
async def test_the_journal_has_every_run_that_was_accepted_and_every_end_that_was_told(tmp_path):
    rng, started, completed = random.Random(3), 0, 0
    for _ in range(CUTS):
        lines, disk = cut(tmp_path, rng, "journal")
        with mounted(disk, tmp_path / "after") as folder:
            check_whole(folder / "journal.db")
            journal = journal_at(f"sqlite:///{folder}/journal.db")
            await journal.observe()
            try:
                for told, name in (line.split() for line in whole(lines)):
                    stored_run = await journal.read(name)
                    assert stored_run is not None, f"{name} was accepted, and is gone"
                    if told == "completed":
                        assert stored_run.header.state is RunState.COMPLETED, f"{name} was told to be completed"
                        completed += 1
                    else:
                        started += 1
            finally:
                await journal.close()
    print(f"\n{CUTS} power cuts, {started} runs accepted and {completed} completed: none lost")
    assert completed > 5 * CUTS
