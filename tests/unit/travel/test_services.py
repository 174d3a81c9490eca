"""Each service alone: what it sells, what it refuses, and that its undo gives everything back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from yaoki.errors import ConfigError
from yaoki.examples.travel import desks
from yaoki.examples.travel.catalogue import rows
from yaoki.examples.travel.services import make
from yaoki.examples.travel.store import Store, path_of


class Client:
    """A service on its own database, spoken to over ASGI."""

    def __init__(self, name: str, folder: Path) -> None:
        self.app = make(name, f"sqlite:///{folder / name}.db")
        self.db = self.app.state.store.db

    async def send(self, method: str, path: str, key: str = "", body: Any = None) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://service") as client:
            if method == "DELETE":
                return await client.delete(path, params={"key": key})
            return await client.request(method, path, json=body, headers={"Idempotency-Key": key} if key else {})

    async def post(self, path: str, key: str, **body: Any) -> httpx.Response:
        return await self.send("POST", path, key, body)

    def one(self, sql: str) -> Any:
        return self.db.execute(sql).fetchone()[0]


@pytest.fixture
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = Client(request.param, tmp_path)
    yield made
    made.app.state.store.close()


def smallest(name: str, column: str) -> dict[str, str]:
    return min(rows(name), key=lambda row: (int(row[column]), row["id"]))


@pytest.mark.parametrize("client", ["hotel"], indirect=True)
async def test_a_hotel_sells_its_rooms_for_each_night_and_no_more(client: Client) -> None:
    hotel = smallest("hotels", "rooms")
    stay = {"trip": "t", "hotel": hotel["id"], "check_in": "2013-06-05", "nights": 2, "guest": "Aiko"}
    for number in range(int(hotel["rooms"])):
        assert (await client.post("/bookings", f"{number}/hotel", **stay)).status_code == 200
    full = await client.post("/bookings", "x/hotel", **stay)
    assert (full.status_code, full.json()["code"]) == (409, "YK-1300")
    assert "is full on 2013-06-05" in full.json()["title"]
    assert (await client.post("/bookings", "y/hotel", **{**stay, "check_in": "2013-06-06"})).status_code == 409, "the second night"
    assert (await client.post("/bookings", "z/hotel", **{**stay, "check_in": "2013-06-07"})).status_code == 200
    assert (await client.send("DELETE", "/bookings", "0/hotel")).status_code == 200
    assert (await client.post("/bookings", "w/hotel", **stay)).status_code == 200, "a cancelled room is sold again"
    assert client.one("SELECT count(*) FROM taken") == 2 * (int(hotel["rooms"]) + 1)


@pytest.mark.parametrize("client", ["hotel"], indirect=True)
@pytest.mark.parametrize("wrong", [{"nights": 0}, {"nights": 31}, {"check_in": "June"}, {"extra": 1}])
async def test_a_stay_that_makes_no_sense_is_refused_and_keeps_nothing(client: Client, wrong: dict[str, Any]) -> None:
    stay = {"trip": "t", "hotel": "ATL-1", "check_in": "2013-06-05", "nights": 2, "guest": "Aiko", **wrong}
    assert (await client.post("/bookings", "r/hotel", **stay)).status_code == 422
    assert client.one("SELECT count(*) FROM yaoki_effects") == 0


@pytest.mark.parametrize("client", ["flight"], indirect=True)
async def test_a_flight_sells_what_is_free_and_tickets_only_for_bookings(client: Client) -> None:
    flight = min((row for row in rows("flights") if int(row["free"]) > 0), key=lambda row: int(row["free"]))
    seat = {"trip": "t", "flight": flight["id"], "traveller": "Hiro"}
    first = await client.post("/bookings", "0/flight", **seat)
    for number in range(1, int(flight["free"])):
        await client.post("/bookings", f"{number}/flight", **seat)
    sold_out = await client.post("/bookings", "x/flight", **seat)
    assert (sold_out.status_code, sold_out.json()["title"]) == (409, f"{flight['id']} is sold out")
    ticket = {"trip": "t", "booking": first.json()["booking"], "receipt": "C1"}
    assert (await client.post("/tickets", "0/ticket", **ticket)).json() == {"ticket": "016-0000000001"}
    assert (await client.send("DELETE", "/tickets", "0/ticket")).status_code == 200
    assert client.one("SELECT state FROM tickets") == "void"
    await client.send("DELETE", "/bookings", "0/flight")
    assert (await client.post("/tickets", "1/ticket", **ticket)).status_code == 409
    assert (await client.post("/bookings", "y/flight", trip="t", flight="ZZ1", traveller="Hiro")).status_code == 404


@pytest.mark.parametrize("client", ["points"], indirect=True)
async def test_points_are_spent_once_never_overdrawn_and_given_back_once(client: Client) -> None:
    member = smallest("members", "points")
    opening = int(member["points"])
    spend = {"trip": "t", "member": member["id"], "points": opening - 1}
    for _ in range(2):
        assert (await client.post("/spends", "r/points", **spend)).json() == {"spend": "P1", "left": 1}
    assert (await client.post("/spends", "s/points", **{**spend, "points": 2})).status_code == 409
    assert (await client.post("/spends", "u/points", **{**spend, "member": "M9999"})).status_code == 404
    for _ in range(2):
        await client.send("DELETE", "/spends", "r/points")
    assert client.one(f"SELECT balance FROM members WHERE id = '{member['id']}'") == opening


@pytest.mark.parametrize("client", ["payment"], indirect=True)
async def test_a_payment_is_authorised_captured_and_refunded_by_its_keys(client: Client) -> None:
    held = await client.post("/authorizations", "r/payment", trip="t", card="tok_visa", amount=500)
    assert held.json() == {"authorization": "A1", "amount": 500}
    captured = await client.post("/captures", "r/payment#2", trip="t", authorization="A1")
    assert captured.json() == {"receipt": "C1", "amount": 500}
    assert (await client.post("/captures", "r/payment#3", trip="t", authorization="A1")).status_code == 409, "no second capture"
    await client.send("DELETE", "/captures", "r/payment#2")
    await client.send("DELETE", "/authorizations", "r/payment")
    assert client.one("SELECT state FROM captures") == client.one("SELECT state FROM authorizations") == "refunded"
    assert (await client.post("/captures", "r/payment#2", trip="t", authorization="A1")).status_code == 409, "nor a late one"


@pytest.mark.parametrize("client", ["payment"], indirect=True)
async def test_a_declined_card_holds_nothing_and_a_void_is_a_void(client: Client) -> None:
    declined = await client.post("/authorizations", "r/payment", trip="t", card="tok_declined", amount=500)
    assert (declined.status_code, declined.json()["title"]) == (402, "the card was declined")
    assert client.one("SELECT count(*) FROM authorizations") == 0
    await client.post("/authorizations", "s/payment", trip="t", card="tok_jcb", amount=500)
    await client.send("DELETE", "/authorizations", "s/payment")
    assert client.one("SELECT state FROM authorizations") == "voided"
    assert (await client.post("/captures", "s/payment#2", trip="t", authorization="A1")).status_code == 409


async def test_recommendations_are_near_and_need_no_database() -> None:
    transport = httpx.ASGITransport(make("recommend", ""))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        found = (await client.get("/recommendations", params={"near": "ATL"})).json()
        assert [row["id"][:3] for row in found] == ["ATL"] * 3
        assert len((await client.get("/recommendations")).json()) == 3
        assert (await client.get("/health")).json() == {"ok": True}


def test_a_store_is_a_file_with_a_url_and_says_what_is_wrong_with_others(tmp_path: Path) -> None:
    assert path_of("sqlite:////tmp/a%20b.db") == Path("/tmp/a b.db")
    for url in ("postgresql://host/db", "sqlite://host/x.db", "sqlite:///", "hotel.db"):
        with pytest.raises(ConfigError, match="store of a service"):
            path_of(url)
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as one" * 20)
    with pytest.raises(ConfigError, match="cannot be used as a database"):
        Store(f"sqlite:///{tmp_path / 'text.db'}", "")
    with pytest.raises(ConfigError, match="no service"):
        make("cars", "")


def test_a_service_that_starts_again_finds_what_it_had(tmp_path: Path) -> None:
    first = make("points", f"sqlite:///{tmp_path / 'p.db'}").state.store
    first.db.execute("UPDATE members SET balance = 7 WHERE id = 'M0001'")
    first.close()
    second = make("points", f"sqlite:///{tmp_path / 'p.db'}").state.store
    assert second.db.execute("SELECT balance FROM members WHERE id = 'M0001'").fetchone() == (7,)
    assert (tmp_path / "p.db").stat().st_mode & 0o777 == 0o600
    second.close()


def test_a_desk_finds_its_service_by_the_environment_or_the_default_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAVEL_HOTEL", "http://elsewhere")
    assert desks.url_of("hotel") == "http://elsewhere"
    assert desks.url_of("payment") == "http://127.0.0.1:8104"
