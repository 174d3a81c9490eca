"""How far an exploration came that was stopped by its budget, so that the next one goes on from there.

The order of the search is the same for the same code and settings, so a number is enough: the plans before it are done.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from yaoki.errors import ConfigError
from yaoki.explore.report import Report


class Progress(msgspec.Struct):
    """What is kept. told: the settings that the order depends on."""

    told: str
    report: dict[str, object]


def load_progress(path: Path, told: str) -> Report | None:
    """The report so far; None when nothing was kept, or everything was done.

    Raises:
        ConfigError: the file is of another exploration, or is none.
    """
    if not path.exists():
        return None
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Progress)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} does not keep an exploration: {error}", do="remove it, or name another file") from error
    if kept.told != told:
        raise ConfigError(f"{path} keeps another exploration: {kept.told}, not {told}", do="use the same settings, or another file")
    report = Report.from_dict(kept.report)
    if report.exhausted:
        return None
    report.stopped = ""
    report.exhausted = True  # so far as it goes: the rest decides
    return report


def save_progress(path: Path, told: str, report: Report) -> None:
    """Keep it, in one piece: a half-written file would be worse than none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.write_bytes(msgspec.json.encode(Progress(told, report.to_dict())))
    fresh.replace(path)
