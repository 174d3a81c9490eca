"""What tests of the ledger are given: the URL of a database of their own, and a NATS server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.test_messages_brokers import wait_for_port
from servers import PostgresServer, free_port


@pytest.fixture
def postgres(postgres: PostgresServer) -> str:
    """The URL of an empty database."""
    return postgres.new_database()


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
