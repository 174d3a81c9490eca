"""Plain service code that knows nothing of Yaoki, explored through httpx and requests."""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
import requests
from fastapi import FastAPI, Header
from flask import Flask, request

from yaoki.explore import Reply, Request, Scenario, World, explore, replay


def fastapi_bank(charges: dict[str, int], *, idempotent: bool) -> FastAPI:
    app = FastAPI()
    seen: dict[str, dict[str, int]] = charges.setdefault("seen", {})  # type: ignore[assignment]

    @app.post("/charges")
    async def charge(body: dict[str, int], idempotency_key: Annotated[str, Header()] = "") -> dict[str, int]:
        if idempotent and idempotency_key in seen:
            return seen[idempotency_key]
        charges["total"] = charges.get("total", 0) + body["amount"]
        seen[idempotency_key] = {"amount": body["amount"]}
        return seen[idempotency_key]

    return app


def flask_shop(*, retries: int) -> Flask:
    """A shop that charges the card at the bank, over requests."""
    app = Flask("shop")

    @app.post("/orders")
    def order():
        key = request.headers.get("Idempotency-Key", "")
        for attempt in range(retries + 1):
            try:
                reply = requests.post("http://bank.test/charges", json={"amount": 5}, headers={"Idempotency-Key": key}, timeout=2)
                reply.raise_for_status()
                return {"paid": reply.json()["amount"]}
            except requests.RequestException:
                if attempt == retries:
                    return {"error": "bank"}, 503
        raise AssertionError

    return app


def shop_scenario(*, idempotent: bool, retries: int = 12) -> Scenario:
    def setup(world: World) -> None:
        world.disk["bank"] = {}
        world.host("bank.test", make=lambda: fastapi_bank(world.disk["bank"], idempotent=idempotent))
        world.host("shop.test", flask_shop(retries=retries))

    async def customer() -> int:
        async with httpx.AsyncClient(base_url="http://shop.test", timeout=60) as client:
            for _ in range(30):
                try:
                    reply = await client.post("/orders", headers={"Idempotency-Key": "order-7"})
                except httpx.TransportError:
                    continue
                if reply.status_code == 200:
                    return reply.json()["paid"]
        raise AssertionError("never paid")

    def charged_once(world: World) -> str:
        total = world.disk["bank"].get("total", 0)
        return "" if total == 5 else f"5 was to be charged, and {total} was"

    return Scenario(customer, setup=setup, invariants=[charged_once], name="shop")


def test_flask_with_requests_and_fastapi_with_httpx_are_explored_as_they_are():
    report = explore(shop_scenario(idempotent=True), faults=1)
    assert report.ok, report.text()
    assert set(report.matrix) == {"shop.test.POST /orders", "bank.test.POST /charges"}


def test_a_bank_without_idempotency_charges_twice():
    report = explore(shop_scenario(idempotent=False), faults=1)
    assert ("charged_once",) in report.signatures
    run, story = replay(shop_scenario(idempotent=False), "yk1:bank.test.POST /charges@0=call.lost_ack")
    assert run.signature == ("charged_once",)
    assert "bank.test" in story.text()


def test_a_sync_httpx_client_and_a_plain_function_as_a_host():
    def bank(request: Request) -> Reply:
        return Reply(201, json={"method": request.method, "path": request.path, "body": request.json()})

    def main() -> object:
        with httpx.Client() as client:
            reply = client.post("http://bank.test/charges", json=[1])
        return reply.status_code, reply.json()

    run = Scenario(main, setup=lambda world: world.host("bank.test", bank))
    report = explore(run, faults=0)
    assert report.ok, report.text()
    assert report.baseline == "returns (201, {'method': 'POST', 'path': '/charges', 'body': [1]})"


@pytest.mark.parametrize(("fault", "error"), [
    ("call.reject", "ConnectError"), ("call.lost_ack", "ReadError"), ("call.timeout:none", "ReadTimeout"), ("call.timeout:done", "ReadTimeout"),
])
def test_faults_look_like_httpx_errors(fault, error):
    async def main() -> None:
        async with httpx.AsyncClient() as client:
            await client.post("http://bank.test/charges")

    scenario = Scenario(main, setup=lambda world: world.host("bank.test", lambda request: {}))
    run, _ = replay(scenario, f"yk1:bank.test.POST /charges@0={fault}")
    assert run.answer.startswith(f"raises {error}")


@pytest.mark.parametrize(("fault", "error"), [
    ("call.reject", "ConnectionError"), ("call.lost_ack", "ConnectionError"), ("call.timeout:done", "ReadTimeout"),
])
def test_faults_look_like_requests_errors(fault, error):
    def main() -> None:
        requests.post("http://bank.test/charges", timeout=3)

    scenario = Scenario(main, setup=lambda world: world.host("bank.test", lambda request: {}))
    run, _ = replay(scenario, f"yk1:bank.test.POST /charges@0={fault}")
    assert run.answer.startswith(f"raises {error}")


@pytest.mark.parametrize(("fault", "answer"), [
    ("payload.truncate", "raises JSONDecodeError"), ("payload.corrupt", "raises JSONDecodeError"), ("payload.unexpected", "returns {'unexpected': True}"),
])
def test_a_reply_may_be_spoiled_after_the_work_is_done(fault, answer):
    done = []

    def main() -> object:
        return requests.get("http://bank.test/charges", timeout=3).json()

    def bank(request: Request) -> object:
        done.append(1)
        return {"charges": []}

    run, _ = replay(Scenario(main, setup=lambda world: world.host("bank.test", bank)), f"yk1:bank.test.GET /charges@0={fault}")
    assert run.answer.startswith(answer)
    assert done


def test_an_unknown_host_says_how_to_add_it():
    def main() -> None:
        requests.get("http://nowhere.test/", timeout=3)

    run, _ = replay(Scenario(main), "yk1:none")
    assert "world.host('nowhere.test', app)" in run.answer


def test_a_partition_cuts_off_and_heals():
    async def main(world: World) -> list[int]:
        async with httpx.AsyncClient(timeout=1) as client:
            said = []
            for _ in range(2):
                try:
                    said.append((await client.get("http://bank.test/")).status_code)
                except httpx.ReadTimeout:
                    said.append(0)
                    world.heal()
        return said

    def setup(world: World) -> None:
        world.host("bank.test", lambda request: {})
        world.partition("bank.test")

    assert explore(Scenario(main, setup=setup), faults=0).baseline == "returns [0, 200]"
