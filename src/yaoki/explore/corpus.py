"""Counterexamples found before, which are run first next time: a line of text each, to be committed beside the tests.

    # scenario  token
    trip        yk1:payment>payment.book@0=call.lost_ack
"""

from __future__ import annotations

from pathlib import Path

from yaoki.errors import ConfigError
from yaoki.explore.plan import Plan, Settings, parse

HEAD = "# Executions that once broke an invariant. The explorer runs them first. Scenario, then replay token.\n"


def load(path: Path, scenario: str) -> list[tuple[Plan, Settings]]:
    """What is kept for this scenario, oldest first; nothing when there is no file.

    Raises:
        ConfigError: a line that is not `scenario token`; names the file and line.
    """
    if not path.exists():
        return []
    return [(plan, settings) for name, plan, settings in entries(path) if name == scenario]


def entries(path: Path) -> list[tuple[str, Plan, Settings]]:
    """All that is kept: scenario, plan and what else the execution depends on. Raises ConfigError."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name, _, text = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        try:
            plan, settings = parse(text)
        except ConfigError as error:
            raise ConfigError(f"{path}:{number}: {error}", do="mend or remove the line") from error
        found.append((name, plan, settings))
    return found


def add(path: Path, scenario: str, tokens: list[str]) -> int:
    """Keep these tokens, unless they are there. Returns how many were new."""
    text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    new = [line for line in dict.fromkeys(f"{scenario} {token}" for token in tokens) if line not in text.splitlines()]
    if new:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "".join(f"{line}\n" for line in new), encoding="utf-8")
    return len(new)
