"""The demo as a user runs it: processes, kills, faults; its mistakes, its end on Ctrl-C, and a service broken on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from yaoki.examples.travel.demo import play, run
from yaoki.examples.travel.demo.play import Outcome, Plan, Play
from yaoki.examples.travel.demo.report import table, to_dict

pytestmark = pytest.mark.live

DEMO = [sys.executable, "-m", "yaoki.examples.travel"]
FIGURES = ("trips", "completed", "undone", "blocked", "lost", "duplicated_effects", "orphaned_effects", "charged_twice", "overbooked",
           "orchestrator_kills", "service_kills", "faults_injected", "seconds", "seed")


def demo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *words], capture_output=True, text=True, timeout=280, check=False)


def processes(mark: str) -> list[str]:
    """Processes with `mark` among their words."""
    listed = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if mark in line and "<defunct>" not in line]


def wait_until_none_is_left(mark: str) -> None:
    until = time.monotonic() + 120
    while (left := processes(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == []


@contextlib.contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that would take long, once its orchestrator is at work."""
    process = subprocess.Popen([*DEMO, "--trips", "100000", "--dir", str(folder), "--kills", "0"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while not any("orchestrator" in line for line in processes(str(folder))):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_every_trip_ends_whole_or_undone_though_everything_fails() -> None:
    done = demo("--trips", "30", "--faults", "0.2", "--kills", "2", "--seed", "7", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)  # nothing else is on standard output
    assert set(FIGURES) <= set(found)
    assert found["completed"] + found["undone"] == found["trips"] == 30
    assert found["completed"] > 0
    assert [found[name] for name in FIGURES[3:9]] == [0] * 6
    assert (found["orchestrator_kills"], found["seed"]) == (2, 7)
    assert found["faults_injected"] > 10
    assert "Every trip ended, and nothing is left over." in done.stderr


def test_without_faults_only_business_reasons_undo_a_trip() -> None:
    done = demo("--trips", "12", "--faults", "0", "--kills", "0", "--seed", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 faults   none" in done.stdout
    assert "0 services and 0 orchestrators killed" in done.stdout


def test_who_is_to_be_killed_does_not_end_before(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-m", "yaoki.examples.travel.orchestrator", "--dir", str(tmp_path), "--trips", "0", "--stay"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as idle:
        assert idle.stdout is not None
        assert [json.loads(idle.stdout.readline())["under_way"] for _ in range(4)] == [0] * 4  # without --stay there is one line
        idle.kill()
        assert idle.wait() == -signal.SIGKILL


def test_mistakes_are_told_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        mistakes: list[tuple[dict[str, Any], str]] = [
            ({"port": port}, f"port {port} is taken"), ({"folder": tmp_path / "file"}, "cannot be used"),
            ({"folder": tmp_path / "full"}, "is not empty"), ({"faults": 2}, "share of the requests"), ({"trips": 0}, "at least 1"),
            ({"kills": -1}, "at least 0"), ({"port": 80}, "from 1024")]
        for mistake, said in mistakes:
            assert run(**{"trips": 5, **mistake}) == 2
            told = capsys.readouterr().err
            assert said in told
            assert "Traceback" not in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as process:
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 130, said
        assert "interrupted" in said
        assert "Traceback" not in said
        wait_until_none_is_left(str(tmp_path))


def test_a_demo_killed_with_signal_nine_leaves_no_process(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        assert len(processes(str(tmp_path))) >= 7  # the demo, the host, five services
        process.kill()
        process.wait()
        wait_until_none_is_left(str(tmp_path))


def test_without_its_services_the_demo_says_so_and_ends(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        host = min(int(line.split()[0]) for line in processes(str(tmp_path)) if "travel.host" in line)
        os.kill(host, signal.SIGKILL)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "the services stopped: their host was killed" in said
        assert "Traceback" not in said
        wait_until_none_is_left(str(tmp_path))


BROKEN = """
import sys
from yaoki.examples.travel import host
from yaoki.examples.travel.services import {service}
{damage}
sys.exit(host.main(sys.argv[1:]))
"""
DAMAGE = {
    "drops an undo": ("hotel", "hotel.cancel = lambda *_: None", "orphaned_effects"),
    "books beyond its seats": ("flight", ("book = flight.book\ndef booked(db, seat, key):\n"
                               "    db.execute('UPDATE flights SET free = free + 1 WHERE id = ?', (seat.flight,))\n"
                               "    try: return book(db, seat, key)\n"
                               "    finally: db.execute('UPDATE flights SET free = free - 1 WHERE id = ?', (seat.flight,))\n"
                               "flight.book = booked"), "overbooked"),
    "charges twice": ("payment", ("once = payment.capture\ndef capture(db, wish, key):\n"
                                  "    answer = once(db, wish, key)\n"
                                  "    db.execute('INSERT INTO captures (key, trip, authorization, amount, state) '\n"
                                  "               'SELECT key, trip, authorization, amount, state FROM captures WHERE key = ?', (key,))\n"
                                  "    return answer\npayment.capture = capture"), "charged_twice"),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_service_broken_on_purpose_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    service, code, figure = DAMAGE[damage]
    script = tmp_path / "broken_host.py"
    script.write_text(BROKEN.format(service=service, damage=code))
    spawn = play._spawn

    async def spawned(module: str, *words: str, **env: str) -> asyncio.subprocess.Process:
        if module != "host":
            return await spawn(module, *words, **env)
        return await asyncio.create_subprocess_exec(sys.executable, str(script), *words, stdin=asyncio.subprocess.PIPE,
                                                    stdout=asyncio.subprocess.PIPE, env={**os.environ, **env}, start_new_session=True)

    monkeypatch.setattr(play, "_spawn", spawned)
    (tmp_path / "run").mkdir()
    trips = 120 if figure == "overbooked" else 25  # so many want the same few seats
    outcome: Outcome = await Play(Plan(trips=trips, faults=0.0, kills=0, seed=1, folder=tmp_path / "run", limit_s=280), _ignore).run()
    found: dict[str, Any] = to_dict(outcome)
    assert found[figure] > 0, found
    assert not outcome.report.clean
    assert "NOT CLEAN" in table(outcome)
    wait_until_none_is_left(str(tmp_path / "run"))


def _ignore(_: object) -> None: ...
