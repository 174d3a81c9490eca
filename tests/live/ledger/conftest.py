"""The same PostgreSQL server as the contracts use."""

from contracts.ledger.conftest import postgres, postgres_server

__all__ = ["postgres", "postgres_server"]
