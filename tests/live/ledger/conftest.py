"""The same PostgreSQL server as the contracts use."""

from contracts.ledger.conftest import postgres

__all__ = ["postgres"]
