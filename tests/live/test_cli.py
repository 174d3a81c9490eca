"""The command line as real processes: killed, interrupted, beside each other, on full, closed and broken disks."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.live

ORDERS = Path(__file__).parents[1] / "unit/cli/orders.py"
CARDS = ["1"] * 9 + ["declined"]


class Yk:
    """`yk` in a folder of its own, with a saga in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(ORDERS, folder / "orders.py")
        self.environ = {**os.environ, "NO_COLOR": "1"}

    def write(self, count: int) -> None:
        (self.folder / "orders.jsonl").write_text("".join(
            json.dumps({"id": f"o-{n:04}", "card": {"number": CARDS[n % 10]}}) + "\n" for n in range(count)))

    def start(self, *words: str, pause_s: float = 0.0, **more: Any) -> subprocess.Popen[str]:
        environ = {**self.environ, "ORDERS_PAUSE": str(pause_s)}
        return subprocess.Popen([sys.executable, "-m", "yaoki", *words], cwd=self.folder, env=environ, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)

    def __call__(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        process = self.start(*words, **more)
        out, err = process.communicate(timeout=150)
        assert "Traceback" not in err or "bug" in err, err
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def run(self, **more: Any) -> subprocess.CompletedProcess[str]:
        return self("run", "orders:order", "orders.jsonl", "--json", **more)

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for line in self("runs", "list", "--limit", "100000", "--json").stdout.splitlines():
            state = json.loads(line)["state"]
            counts[state] = counts.get(state, 0) + 1
        return counts

    def wait_until(self, holds: Callable[[], bool], limit_s: float = 120.0) -> None:
        until = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < until
            time.sleep(0.02)

    def rows(self) -> int:
        """Records in the journal, or 0 while there is none."""
        return self.found("SELECT count(*) FROM record") or 0

    def state(self, run: str) -> str | None:
        return self.found("SELECT state FROM run WHERE id = ?", run)

    def found(self, question: str, *values: str) -> Any:
        """What the journal says, beside whoever is at work; None while there is none."""
        try:
            connection = sqlite3.connect(f"file:{self.folder / 'yaoki.db'}?mode=ro", uri=True)
            try:
                row = connection.execute(question, values).fetchone()
            finally:
                connection.close()
        except sqlite3.Error:
            return None
        return row[0] if row else None


@pytest.fixture
def yk(tmp_path: Path) -> Iterator[Yk]:
    return Yk(tmp_path)


def refused(done: subprocess.CompletedProcess[str], *what: str) -> None:
    assert done.returncode == 2, done
    assert done.stderr.startswith("YK-"), done.stderr
    assert "do this:" in done.stderr
    for each in what:
        assert each in done.stderr


# ── it goes on ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_after_kill_9_the_same_command_goes_on_and_every_line_is_one_run(yk: Yk):
    yk.write(300)
    for kill_at in (20, 200):
        process = yk.start("run", "orders:order", "orders.jsonl", pause_s=0.05)
        yk.wait_until(lambda at=kill_at: yk.rows() >= at)
        process.kill()
        process.communicate()
    unfinished = json.loads(yk.run().stdout)
    assert unfinished["unfinished"] == 0
    assert (unfinished["completed"], unfinished["undone"], unfinished["runs"]) == (270, 30, 300)
    assert yk.counts() == {"completed": 270, "undone": 30}


@pytest.mark.parametrize(("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_a_signal_stops_politely_and_the_same_command_goes_on(yk: Yk, number: int, code: int, word: str):
    yk.write(300)  # at five at a time they take long
    process = yk.start("run", "orders:order", "orders.jsonl", "--concurrency", "5", pause_s=0.1)
    yk.wait_until(lambda: yk.rows() >= 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert f"{word}: nothing is lost; the same command goes on where it stopped" in out
    assert "Traceback" not in err
    assert json.loads(yk.run().stdout)["runs"] == 300


def test_looking_and_deciding_work_beside_a_running_engine_and_a_second_one_is_refused(yk: Yk):
    (yk.folder / "orders.jsonl").write_text('{"id":"o-1","card":{"number":"wait"}}\n{"id":"o-2","card":{"number":"bug"}}\n')
    process = yk.start("run", "orders:order", "orders.jsonl")
    yk.wait_until(lambda: yk.state("o-1") == "running" and yk.state("o-2") == "blocked")  # and o-1 waits for the file
    assert json.loads(yk("runs", "show", "o-1", "--json").stdout)["state"] == "running"
    refused(yk("run", "orders:order", "orders.jsonl"), "YK-3001", f"in use by process {process.pid}")
    assert yk("runs", "resolve", "o-2", "pay", "undone").returncode == 0
    yk.wait_until(lambda: yk.state("o-2") in {"undone", "undoing"})
    assert yk("runs", "cancel", "o-1", "--reason", "changed my mind", "--who", "ann").returncode == 0
    (yk.folder / "go").touch()
    process.communicate(timeout=120)
    told = json.loads(yk("runs", "show", "o-1", "--json").stdout)
    assert (told["state"], told["reason"]) == ("cancelled", "changed my mind by ann")


def test_the_scripts_yk_and_yaoki_are_the_module(yk: Yk):
    for name in ("yk", "yaoki"):
        done = subprocess.run([Path(sys.executable).with_name(name), "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == yk("--version").stdout


# ── it cannot ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("content", "what"), [
    (b"this is a letter to my aunt\n" * 100, "is not a journal"),
    (b"\0" * 4096, "is not a journal"),
    (b"SQLite format 3\0" + b"\xff" * 4080, "is not a journal"),
])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(yk: Yk, content: bytes, what: str):
    yk.write(3)
    (yk.folder / "yaoki.db").write_bytes(content)
    refused(yk("run", "orders:order", "orders.jsonl"), "YK-3002", what)
    refused(yk("runs", "list"), "YK-3002")
    assert (yk.folder / "yaoki.db").read_bytes() == content


def test_another_programs_database_is_refused_and_left_as_it_is(yk: Yk):
    yk.write(3)
    connection = sqlite3.connect(yk.folder / "yaoki.db")
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()
    before = (yk.folder / "yaoki.db").read_bytes()
    refused(yk("run", "orders:order", "orders.jsonl"), "YK-3002", "database of another program")
    refused(yk("runs", "list"), "YK-3002", "database of another program")
    assert (yk.folder / "yaoki.db").read_bytes() == before


def test_a_damaged_journal_is_named_by_doctor(yk: Yk):
    yk.write(200)
    yk.run()
    path = yk.folder / "yaoki.db"
    data = bytearray(path.read_bytes())
    data[8192:16384] = b"\xa5" * 8192
    path.write_bytes(data)
    done = yk("doctor")
    assert done.returncode == 1
    assert "damaged" in done.stdout


def test_a_folder_that_cannot_be_written_is_said(yk: Yk):
    yk.write(3)
    # /proc is closed to everybody, root included.
    refused(yk("run", "orders:order", "orders.jsonl", "--db", "sqlite:////proc/yaoki.db"), "/proc/yaoki.db")
    refused(yk("run", "orders:order", "orders.jsonl", "--db", "sqlite:///no/such/folder/x.db"), "folder")


def test_a_journal_that_cannot_be_read_is_said(yk: Yk):
    refused(yk("runs", "list"), "there is no journal at yaoki.db")
    (yk.folder / "yaoki.db").mkdir()
    refused(yk("runs", "list"), "yaoki.db")


def test_on_a_full_disk_it_stops_loses_nothing_and_goes_on_when_there_is_room(yk: Yk):
    yk.write(400)

    def little_room() -> None:  # files may not grow: what a full disk, or a quota, looks like to a process
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = yk("run", "orders:order", "orders.jsonl", preexec_fn=little_room)
    refused(done, "YK-3000")
    acknowledged = yk.rows()
    assert 0 < acknowledged < 400 * 3
    whole = json.loads(yk.run().stdout)
    assert (whole["runs"], whole["completed"], whole["undone"]) == (400, 360, 40)


def test_a_port_that_is_taken_is_said_before_anything_starts(yk: Yk):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = yk("demo", "--trips", "3", "--kills", "0", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2, done
    assert "port" in done.stderr
    assert "Traceback" not in done.stderr


def test_standard_input_is_checked_before_it_is_used(yk: Yk):
    yk.write(20)
    with (yk.folder / "orders.jsonl").open() as lines:
        done = yk("run", "orders:order", "-", "--json", stdin=lines)
    assert json.loads(done.stdout)["runs"] == 20
    (yk.folder / "bad.jsonl").write_text('{"id":"new","card":{"number":"1"}}\n{"id"\n')
    with (yk.folder / "bad.jsonl").open() as lines:
        refused(yk("run", "orders:order", "-", stdin=lines), "standard input:2: broken JSON")
    assert sum(yk.counts().values()) == 20
