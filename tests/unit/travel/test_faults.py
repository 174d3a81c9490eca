"""Each fault does what it says, to a service that counts its effects."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from virtual_time import run
from yaoki.examples.travel import faults
from yaoki.examples.travel.faults import KINDS, Faults, Switch, count


class Counting:
    """A service with one effect, behind one kind of fault."""

    def __init__(self, folder: Path, kind: str, share: float = 1.0, timeout_s: float = 0.05) -> None:
        self.effects = 0

        async def effect(request: Request) -> JSONResponse:
            assert await request.json() == {"room": 7}
            self.effects += 1
            return JSONResponse({"effects": self.effects})

        async def health(_: Request) -> JSONResponse:
            return JSONResponse({})

        app = Starlette(routes=[Route("/effect", effect, methods=["POST"]), Route("/health", health)])
        self.folder = folder
        self.switch = Switch.create(folder / "faults.switch", share)
        self.faults = Faults(app, store=None, switch=self.switch, log=folder / "x.faults", seed="1", timeout_s=timeout_s)
        self.faults._rng.choice = lambda kinds: kind if kinds is KINDS else kinds[-1]  # type: ignore[method-assign]

    async def post(self, path: str = "/effect") -> httpx.Response:
        transport = httpx.ASGITransport(self.faults)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.post(path, json={"room": 7}) if path == "/effect" else await client.get(path)


class Server:
    """As uvicorn does it: `send` is a method of what holds the transport."""

    def __init__(self) -> None:
        self.transport = self
        self.cut = False
        self.sent: list[Any] = []

    def abort(self) -> None:
        self.cut = True

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def serve(self, app: Any) -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b'{"room": 7}'}

        scope = {"type": "http", "method": "POST", "path": "/effect", "headers": [], "query_string": b"", "root_path": ""}
        await app(scope, receive, self.send)


async def test_refused_is_a_503_without_the_effect(tmp_path: Path) -> None:
    service = Counting(tmp_path, "refused")
    reply = await service.post()
    assert (reply.status_code, service.effects) == (503, 0)
    assert count(tmp_path) == {"refused": 1}


async def test_error_is_a_500_after_the_effect(tmp_path: Path) -> None:
    service = Counting(tmp_path, "error")
    assert ((await service.post()).status_code, service.effects) == (500, 1)


async def test_a_lost_reply_has_its_effect(tmp_path: Path) -> None:
    service, server = Counting(tmp_path, "reply lost"), Server()
    await server.serve(service.faults)
    assert (service.effects, server.cut, server.sent) == (1, True, [])


async def test_on_another_server_a_lost_reply_is_an_answer_that_never_ends(tmp_path: Path) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await faults._cut(send)
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_a_duplicate_is_two_deliveries_and_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "LATE_S", 0.0)
    service = Counting(tmp_path, "duplicate")
    assert (await service.post()).json() == {"effects": 1}
    await asyncio.gather(*service.faults._late)
    assert service.effects == 2


@pytest.mark.parametrize("late", [True, False])
def test_slow_makes_its_effect_after_or_before_the_callers_timeout(tmp_path: Path, late: bool) -> None:
    service = Counting(tmp_path, "slow")
    draws = iter([0.0, 0.1 if late else 0.9])  # is it to fail, and in which half
    service.faults._rng.random = lambda: next(draws)  # type: ignore[method-assign]
    service.faults._rng.uniform = lambda low, _: low  # type: ignore[method-assign]
    server = Server()

    async def main() -> None:
        task = asyncio.create_task(server.serve(service.faults))
        await asyncio.sleep(0.04)  # it sleeps until 0.06 s, the timeout being 0.05 s
        assert service.effects == (0 if late else 1)
        assert not server.cut
        await task

    run(main())
    assert (service.effects, server.cut, server.sent) == (1, True, [])


async def test_a_switch_turned_off_and_the_health_check_are_left_alone(tmp_path: Path) -> None:
    service = Counting(tmp_path, "error")
    assert (await service.post("/health")).status_code == 200
    Switch(tmp_path / "faults.switch").share = 0.0  # as another process would
    assert (await service.post()).status_code == 200
    assert not count(tmp_path)


def test_the_share_and_the_kinds_are_drawn_evenly(tmp_path: Path) -> None:
    service = Counting(tmp_path, "error", share=0.25)
    del service.faults._rng.choice
    for kind in KINDS:
        service.faults._faults[kind] = _nothing

    async def ask() -> None:
        for _ in range(2000):
            await service.post()

    asyncio.run(ask())
    drawn = count(tmp_path)
    assert 400 < drawn.total() < 600
    assert all(50 < drawn[kind] < 120 for kind in KINDS)


async def _nothing(_scope: Any, _body: bytes, send: Any) -> None:
    await faults._answer(send, 200, b"{}")


@pytest.mark.parametrize("when", ["before", "at its commit", "after"])
def test_killed_dies_by_signal_nine_and_keeps_only_what_was_committed(tmp_path: Path, when: str) -> None:
    program = f"""
import asyncio, sqlite3
from pathlib import Path
import httpx
from yaoki.examples.travel.faults import Faults, KINDS, Switch
from yaoki.examples.travel.services import make
folder = Path({str(tmp_path)!r})
app = make("points", f"sqlite:///{{folder}}/points.db")
faulty = Faults(app, store=app.state.store, switch=Switch.create(folder / "s", 1.0), log=folder / "points.faults", seed="1", timeout_s=1)
faulty._rng.choice = lambda kinds: "killed" if kinds is KINDS else {when!r}
async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(faulty), base_url="http://points") as client:
        await client.post("/spends", json={{"trip": "t", "member": "M0001", "points": 1}}, headers={{"Idempotency-Key": "t/points"}})
asyncio.run(ask())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert count(tmp_path) == {"killed": 1}
    import sqlite3

    db = sqlite3.connect(tmp_path / "points.db")
    assert db.execute("SELECT count(*) FROM spends").fetchone() == ((1,) if when == "after" else (0,))
    assert db.execute("SELECT count(*) FROM yaoki_effects").fetchone() == ((1,) if when == "after" else (0,))
    db.close()
