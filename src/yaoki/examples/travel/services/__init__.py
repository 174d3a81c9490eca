"""The services. Each module has `make(store_url) -> Starlette`, its own tables, and knows nothing of the others.

The four that sell something are participants: `EffectEndpoint` makes every booking idempotent by key, undoable before
and after it was made, and never made after it was undone. What is left to write is the business itself.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from yaoki.errors import ConfigError

if TYPE_CHECKING:
    from starlette.applications import Starlette

NAMES = ("hotel", "flight", "points", "payment", "recommend", "front")


def make(name: str, store_url: str) -> Starlette:
    """The ASGI application of one service on its database."""
    if name not in NAMES:
        raise ConfigError(f"there is no service {name!r}", do=f"one of: {', '.join(NAMES)}")
    app: Starlette = import_module(f"yaoki.examples.travel.services.{name}").make(store_url)
    return app
