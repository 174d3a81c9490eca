"""Shared by all tests: the `--long` switch, what Hypothesis draws, and the servers that live tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from servers import PostgresServer, running_postgres

pytest_plugins = ["drawing", "second_look"]

# What whoever runs the tests has set for a terminal, or for Yaoki, is nothing to the programs that are tried here.
for name in [name for name in os.environ if name.startswith("YAOKI_") or name in {"FORCE_COLOR", "NO_COLOR", "PY_COLORS", "COLUMNS", "LINES"}]:
    del os.environ[name]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server a session; each test takes `postgres.new_database()`.

    Without fsync: a test kills processes, and the page cache survives that; new databases are ten times quicker.
    """
    # Not below pytest's own folder: another pytest makes that private again, and the server's user could not stop it.
    with running_postgres(settings="-c fsync=off") as server:
        yield server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tortures that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    kept = [item for item in items if "long" not in item.keywords]
    config.hook.pytest_deselected(items=[item for item in items if "long" in item.keywords])
    items[:] = kept
