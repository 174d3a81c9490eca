"""What an import costs: time, and what it drags along. Measured in a fresh interpreter, with its bytecode in place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Web, database drivers, terminal drawing: whoever only imports, or asks for help, pays for none of them.
HEAVY = {
    "rich", "httpx", "httpcore", "starlette", "uvicorn", "jinja2", "granian", "requests", "aiohttp", "grpc",
    "sqlite3", "apsw", "asyncpg", "psycopg", "sqlalchemy", "redis", "nats", "boto3", "botocore", "aiobotocore",
    "opentelemetry", "pytest", "hypothesis", "numpy",
}

# Design budgets, in imports of `asyncio` by the same interpreter on the same machine at the same time: a slow machine is no
# failure. They hold with room (0.2, 2.3 and 1.1 measured).
CODE = {
    "asyncio": "import asyncio",
    "yaoki": "import yaoki",
    "core": "from yaoki import Saga, Service, open",
    "help": "import sys; sys.argv = ['yk', '--help']; from yaoki.cli.frame.root import run; run(['--help'])",
}
BUDGET = {"yaoki": 1.0, "core": 5.0, "help": 3.0}


def loaded(*words: str) -> set[str]:
    """Top-level packages that `python WORDS` imports, by its own account."""
    done = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True, timeout=150)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:") and "|" in line]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def cpu_s(code: str, bytecode: Path) -> float:
    script = f"import time; began = time.process_time(); {code}; print(time.process_time() - began)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=150,
                          env={**env, "PYTHONPYCACHEPREFIX": str(bytecode)})
    return float(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """CPU time of each, in imports of asyncio: the least of three, turn by turn. The first turn compiles, and does not count."""
    bytecode = tmp_path_factory.mktemp("bytecode")
    turns = [{name: cpu_s(code, bytecode) for name, code in CODE.items()} for _ in range(4)]
    least = {name: min(turn[name] for turn in turns[1:]) for name in CODE}
    return {name: least[name] / least["asyncio"] for name in CODE}


def test_import_yaoki_loads_nothing_heavy_and_only_msgspec_of_others():
    assert not loaded("-c", "import yaoki") & (HEAVY | {"click", "asyncio"})


def test_the_core_names_load_nothing_heavy():
    found = loaded("-c", "from yaoki import Saga, Service, open, retry, pipeline")
    assert not found & (HEAVY | {"click"})
    assert "msgspec" in found, "else the measurement does not see anything"


@pytest.mark.parametrize("name", BUDGET)
def test_an_import_and_help_are_within_their_budgets(costs: dict[str, float], name: str):
    assert costs[name] < BUDGET[name]


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("version", "--help"), ("run", "--help")])
def test_help_loads_nothing_heavy(words: tuple[str, ...]):
    found = loaded("-m", "yaoki", *words)
    assert "click" in found, "else the measurement does not see anything"
    assert not found & HEAVY


def test_top_level_help_loads_no_noun_and_no_engine():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "yaoki", "--help"], capture_output=True, text=True, check=True,
                          timeout=150)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    ours = {module for module in modules if module.startswith("yaoki")}
    assert ours <= {"yaoki", "yaoki.__main__", "yaoki.cli", "yaoki.text", *(m for m in ours if m.startswith("yaoki.cli.frame"))}
