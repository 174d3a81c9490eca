"""Runs over HTTP: started, looked at, and answered once, whoever asks how often."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import yaoki
from yaoki import Saga
from yaoki.errors import ConfigError
from yaoki.integrations.runs import runs_endpoint
from yaoki.messages.accepted.endpoint import Request

TOKEN = "a-token-that-nobody-guesses"


def approvals() -> Saga[int]:
    saga = Saga("approvals", input=int)

    @saga.step(undo=None)
    async def begin(n: int) -> int:
        return n

    @saga.wait_for(bool, timeout=3600)
    async def approval(n: int, begin: int) -> None: ...

    @saga.step(undo=None)
    async def end(n: int, approval: bool) -> str:
        return f"{n} {approval}"

    return saga


@asynccontextmanager
async def served(url: str = "memory:", *, client: str = "127.0.0.1", host: str = "localhost",
                 **settings: Any) -> AsyncIterator[tuple[yaoki.App, httpx.AsyncClient]]:
    async with yaoki.open(url, sagas=[approvals()]) as app:
        transport = httpx.ASGITransport(runs_endpoint(app, wait=60.0, **settings), client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
            yield app, http


async def start(http: httpx.AsyncClient, run: str = "r", n: int = 1) -> httpx.Response:
    return await http.post("/runs", json={"saga": "approvals", "input": n, "id": run})


@pytest.fixture(params=["memory:", "sqlite"])
async def http(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    url = request.param if request.param == "memory:" else f"sqlite:///{tmp_path}/runs.db"
    async with served(url) as (_, client):
        yield client


async def test_a_run_is_started_answered_and_read_and_each_may_be_asked_twice(http: httpx.AsyncClient):
    for _ in range(2):
        reply = await start(http)
        assert (reply.status_code, reply.headers["location"]) == (202, "/runs/r")
    shown = (await http.get("/runs/r")).json()
    assert (shown["state"], shown["waits_for"]) == ("running", ["approval"])
    for _ in range(2):
        reply = await http.post("/runs/r/signals/approval", json=True)
        assert (reply.status_code, reply.json()["recorded"]) == (200, True)
    ended = (await http.get("/runs/r", headers={"prefer": "wait=60"})).json()
    assert (ended["state"], ended["result"], ended["waits_for"]) == ("completed", "1 True", [])
    assert (await http.post("/runs/r/signals/approval", json=True)).status_code == 200, "the same one is still harmless"


@pytest.mark.parametrize(("path", "body", "status", "code"), [
    ("/runs/nobody/signals/approval", True, 404, "YK-4004"),
    ("/runs/r/signals/aproval", True, 404, "YK-2003"),
    ("/runs/r/signals/approval", "yes", 422, "YK-2003"),
    ("/runs/r/signals/approval", {"yes": 1}, 422, "YK-2003"),
    ("/runs", {"saga": "aprovals", "input": 1}, 404, "YK-2003"),
    ("/runs", {"saga": "approvals", "input": "one"}, 422, "YK-2003"),
    ("/runs", {"saga": "approvals", "inptu": 1}, 422, "YK-2003"),
    ("/runs", {"saga": "approvals", "input": 2, "id": "r"}, 409, "YK-4003"),
])
async def test_what_cannot_be_is_refused_with_its_code_and_what_to_do(path: str, body: Any, status: int, code: str):
    async with served() as (_, http):
        await start(http)
        reply = await http.post(path, json=body)
        assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
        told = reply.json()
        assert (told["status"], told["code"]) == (status, code)
        assert told["do"]


async def test_another_answer_and_one_that_comes_too_late_are_conflicts(http: httpx.AsyncClient):
    await start(http)
    await http.post("/runs/r/signals/approval", json=True)
    other = await http.post("/runs/r/signals/approval", json=False)
    assert (other.status_code, other.json()["code"]) == (409, "YK-4011")
    await start(http, "gone")
    assert (await http.post("/runs/gone/cancel", json={"reason": "changed my mind"})).status_code == 202
    assert (await http.get("/runs/gone", headers={"prefer": "wait=60"})).json()["state"] == "cancelled"
    late = await http.post("/runs/gone/signals/approval", json=True)
    assert (late.status_code, late.json()["code"], late.json()["undone"]) == (409, "YK-4010", True)


async def test_wrong_methods_types_and_addresses_are_named():
    async with served() as (_, http):
        await start(http)
        assert (await http.put("/runs/r", json=1)).headers["allow"] == "GET, HEAD"
        assert (await http.get("/runs")).headers["allow"] == "POST"
        assert (await http.post("/runs/r/signals/approval", content="true")).status_code == 415
        assert (await http.post("/runs/r/signals/approval", content="tru", headers={"content-type": "application/json"})).status_code == 400
        assert (await http.get("/elsewhere")).status_code == 404
        assert (await http.get("/runs/nobody")).status_code == 404


@pytest.mark.parametrize(("settings", "headers"), [
    ({"client": "192.0.2.7"}, {}),
    ({"host": "evil.example"}, {}),
    ({}, {"x-forwarded-for": "192.0.2.7"}),
])
async def test_without_a_token_only_this_machine_is_answered(settings: dict[str, str], headers: dict[str, str]):
    async with served(**settings) as (app, http):
        for reply in (await start(http) if not headers else await http.get("/runs/r", headers=headers), await http.get("/runs/r", headers=headers)):
            assert reply.status_code == 403
            assert "token=" in reply.json()["do"]
        assert await app.journal.read("r") is None


async def test_with_a_token_anybody_who_has_it_is_answered_and_nobody_else():
    async with served(client="192.0.2.7", host="trips.example", token=(TOKEN, "the-old-one-is-valid-yet")) as (_, http):
        for header in ("", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"):
            reply = await http.get("/runs/r", headers={"authorization": header} if header else {})
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        for good in (TOKEN, "the-old-one-is-valid-yet"):
            assert (await http.get("/runs/r", headers={"authorization": f"Bearer {good}"})).status_code == 404


async def test_a_verifier_sees_the_body_so_that_a_signed_callback_can_be_checked_and_names_who_it_was():
    def verify(request: Request) -> str:
        signed = hmac.new(b"secret", request.body, hashlib.sha256).hexdigest()
        return "bank" if hmac.compare_digest(signed, request.headers.get("x-signature", "")) else ""

    async with served(client="192.0.2.7", verify=verify) as (app, http):
        assert (await start(http)).status_code == 403
        await app.start(next(iter(app.engine.sagas.values())), 1, id="r")
        signature = hmac.new(b"secret", b"true", hashlib.sha256).hexdigest()
        reply = await http.post("/runs/r/signals/approval", content=b"true", headers={"content-type": "application/json", "x-signature": signature})
        assert reply.status_code == 200


def test_a_token_that_can_be_guessed_is_refused():
    app = yaoki.open("memory:", sagas=[approvals()])
    with pytest.raises(ConfigError):
        runs_endpoint(app, token="short")
    with pytest.raises(ConfigError):
        runs_endpoint(app, token=TOKEN, verify=lambda _: True)
    with pytest.raises(ConfigError):
        runs_endpoint(app, path="runs/")


async def test_a_step_is_completed_by_its_token_alone_and_twice_is_once():
    saga = Saga("print", input=int)
    asked: list[str] = []

    @saga.external(str, undo=None)
    async def ticket(n: int, effect: yaoki.Effect) -> None:
        asked.append(effect.token)

    async with yaoki.open("memory:", sagas=[saga]) as app:
        transport = httpx.ASGITransport(runs_endpoint(app, token=TOKEN, wait=60.0), client=("192.0.2.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://trips.example/runs") as http:
            run = await app.start(saga, 1)
            for _ in range(10_000):
                if asked:
                    break
                await asyncio.sleep(0.01)
            assert (await http.post("/tokens/heartbeat", json={"token": asked[0], "detail": {"page": 3}})).status_code == 200
            wrong = await http.post("/tokens/complete", json={"token": asked[0], "result": 1})
            assert (wrong.status_code, wrong.json()["code"]) == (422, "YK-2003")
            for _ in range(2):
                reply = await http.post("/tokens/complete", json={"token": asked[0], "result": "T-1"})
                assert (reply.status_code, reply.json()) == (200, {"recorded": True})
            assert await run.result() == "T-1"
            for verb, body, status, code in (("complete", {"result": "T-2"}, 409, "YK-4011"), ("fail", {"error": "no"}, 409, "YK-4011"),
                                             ("heartbeat", {}, 409, "YK-4010"), ("fail", {}, 422, "YK-2003")):
                reply = await http.post(f"/tokens/{verb}", json={"token": asked[0], **body})
                assert (reply.status_code, reply.json()["code"]) == (status, code)
            assert (await http.post("/tokens/complete", json={"token": "yk1.x.y"})).status_code == 401
            assert (await http.post("/tokens/eat", json={})).status_code == 404
            assert (await http.get("/tokens/complete")).status_code == 405
