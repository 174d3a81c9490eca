"""What there is to sell, and to whom: read from the files in `data/` (see data/README.md for their sources)."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import msgspec

SERVICES = ("hotel", "flight", "points", "payment")


class Trip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a traveller asks for. Money is in US cents, `points` are those to spend, `check_in` is a day like 2013-06-01."""

    id: str
    traveller: str
    member: str
    flight: str
    hotel: str
    check_in: str
    nights: int
    points: int
    card: str
    price: int


def rows(name: str) -> list[dict[str, str]]:
    """The rows of `data/<name>.csv.gz`."""
    packed = (_folder() / f"{name}.csv.gz").read_bytes()
    return list(csv.DictReader(io.StringIO(gzip.decompress(packed).decode())))


@cache
def _shipped() -> list[Trip]:
    decoder = msgspec.json.Decoder(Trip)
    return [decoder.decode(line) for line in (_folder() / "trips.jsonl").read_bytes().splitlines()]


def trips(count: int) -> Iterator[Trip]:
    """`count` trips: those shipped, then the same again under new ids."""
    shipped = _shipped()
    for number in range(count):
        trip = shipped[number % len(shipped)]
        yield trip if number < len(shipped) else msgspec.structs.replace(trip, id=f"trip-{number + 1:05}")


def _folder() -> Any:
    return resources.files("yaoki.examples.travel") / "data"
