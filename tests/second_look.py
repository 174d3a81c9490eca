"""Writes down which tests failed, so that `tests/run.py` can run them again, alone. See docs/decisions/0032."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """A plugin of the suite (tests/conftest.py)."""
    parser.addoption("--failed-to", type=Path, metavar="FILE", help="write the ids of failed tests here, one a line")


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("--failed-to"):
        config.pluginmanager.register(_Failed(path), "failed-to")


class _Failed:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self._seen:
            self._seen.add(report.nodeid)
            with self._path.open("a", encoding="utf-8") as file:
                print(report.nodeid, file=file)
