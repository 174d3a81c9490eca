"""Open what the verbs of `yk ledger` work on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from yaoki.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from yaoki.ledger import Ledger, Schemas

LEDGER = "The ledger: sqlite:///FILE or postgresql://..."


@contextlib.asynccontextmanager
async def opened(db: str) -> AsyncIterator[Ledger]:
    from yaoki.ledger import Ledger

    if db.startswith("sqlite:///") and not Path(db.removeprefix("sqlite:///")).exists():  # noqa: ASYNC240
        raise ConfigError(f"there is no ledger at {db}", do="check --db; a ledger is made by the program that writes it")
    async with Ledger(db) as ledger:
        yield ledger


def load_schemas(target: str) -> Schemas:
    """The `Schemas` that `MODULE:NAME` names."""
    from yaoki.cli.frame.target import load_module
    from yaoki.ledger import Schemas

    where, _, name = target.rpartition(":")
    if not where:
        raise UsageError(f"{target!r} names no module", do="write MODULE:NAME, for example shop:points")
    found = getattr(load_module(where), name, None)
    if not isinstance(found, Schemas):
        raise UsageError(f"{target} is no Schemas but {type(found).__name__}", do="define one there: Schemas(2, upcasts={1: ...})")
    return found
