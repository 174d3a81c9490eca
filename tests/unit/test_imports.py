"""What an import costs: time, and what it drags along. Measured in a fresh interpreter, by its own clock."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Web, database drivers, terminal drawing: whoever only imports, or asks for help, pays for none of them.
HEAVY = {
    "rich", "httpx", "httpcore", "starlette", "uvicorn", "jinja2", "granian", "requests", "aiohttp", "grpc",
    "sqlite3", "apsw", "asyncpg", "psycopg", "sqlalchemy", "redis", "nats", "boto3", "botocore", "aiobotocore",
    "opentelemetry", "pytest", "hypothesis", "numpy",
}

# Design budgets, in CPU seconds. They hold with room (0.02 and 0.16 measured on two slow cores); CPU time, unlike wall
# time, is not stretched by neighbours.
IMPORT_BUDGET_S = 0.15
HELP_BUDGET_S = 0.4


def loaded(*words: str) -> set[str]:
    """Top-level packages that `python WORDS` imports, by its own account."""
    done = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True, timeout=60)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:") and "|" in line]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def cpu_s(code: str) -> float:
    """The least of three: the first fills the caches of bytecode and files."""
    script = f"import time; began = time.process_time(); {code}; print(time.process_time() - began)"
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60) for _ in range(3)]
    return min(float(run.stdout.splitlines()[-1]) for run in runs)


def test_import_yaoki_loads_nothing_heavy_and_only_msgspec_of_others():
    assert not loaded("-c", "import yaoki") & (HEAVY | {"click", "asyncio"})


def test_the_core_names_load_nothing_heavy():
    found = loaded("-c", "from yaoki import Saga, Service, open, retry, pipeline")
    assert not found & (HEAVY | {"click"})
    assert "msgspec" in found, "else the measurement does not see anything"


def test_import_yaoki_is_within_its_budget():
    assert cpu_s("import yaoki") < IMPORT_BUDGET_S
    assert cpu_s("from yaoki import Saga, Service, open") < 2 * IMPORT_BUDGET_S, "with everything that a saga needs"


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("version", "--help"), ("run", "--help")])
def test_help_loads_nothing_heavy(words: tuple[str, ...]):
    found = loaded("-m", "yaoki", *words)
    assert "click" in found, "else the measurement does not see anything"
    assert not found & HEAVY


def test_top_level_help_loads_no_noun_and_no_engine():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "yaoki", "--help"], capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    ours = {module for module in modules if module.startswith("yaoki")}
    assert ours <= {"yaoki", "yaoki.__main__", "yaoki.cli", "yaoki.text", *(m for m in ours if m.startswith("yaoki.cli.frame"))}


def test_help_is_within_its_budget():
    code = "import sys; sys.argv = ['yk', '--help']; from yaoki.cli.frame.root import run; run(['--help'])"
    assert cpu_s(code) < HELP_BUDGET_S
