"""Settings: `[tool.yaoki]` of pyproject.toml, or yaoki.toml < environment `YAOKI_*` < flags. Each knows where it came from.

An unknown key is an error with "did you mean", because a setting that is silently ignored is found out in production.
Only the command line reads settings; the library takes arguments.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaoki.cli.frame.durations import parse_duration
from yaoki.errors import ConfigError
from yaoki.text import did_you_mean

Value = str | int | float | bool | list[str]


@dataclass(frozen=True)
class Setting:
    """What may be set.

    Attributes:
        key: as written in TOML; `a.b` is key b of table [a]. Its variable is YAOKI_A_B.
        kind: text, count, duration (seconds in the program), switch, or list (of texts).
        default: what holds when nobody says anything.
        about: one line for `yk config show` and the reference page.
    """

    key: str
    kind: str
    default: Value
    about: str

    @property
    def variable(self) -> str:
        return "YAOKI_" + self.key.upper().replace(".", "_").replace("-", "_")


@dataclass(frozen=True)
class Found:
    """A value and where it was said: `default`, `env YAOKI_DB`, `yaoki.toml:3`."""

    setting: Setting
    value: Value
    origin: str


SETTINGS = (
    Setting("db", "text", "sqlite:///yaoki.db", "where runs are kept: sqlite:///FILE, postgresql://HOST/DATABASE"),
    Setting("sagas", "list", [], "MODULE:SAGA of each saga that this project runs, for `yk doctor` and others"),
    Setting("breakers.store", "text", "", "where breakers are shared: redis://..., sqlite:///FILE, dynamodb://TABLE, postgresql://..."),
    Setting("run.concurrency", "count", 256, "runs in flight at once in `yk run`"),
    Setting("run.id-field", "text", "id", "the field of an input that names its run, in `yk run`"),
    Setting("run.grace", "duration", 10.0, "on Ctrl-C, what is under way may still finish within this"),
)

# Variables of ours that are not settings: they concern the process, not the project.
NOT_SETTINGS = frozenset({"YAOKI_DEBUG"})

FILES = ("yaoki.toml", "pyproject.toml")


def table(settings: tuple[Setting, ...] = SETTINGS) -> dict[str, Setting]:
    return {setting.key: setting for setting in settings}


def resolve(start: Path | None = None, env: Mapping[str, str] | None = None) -> dict[str, Found]:
    """Every setting with its value and origin, without flags.

    Raises ConfigError for a file that cannot be read, an unknown key, or a value of the wrong kind.
    """
    found = {key: Found(setting, setting.default, "default") for key, setting in table().items()}
    path = find_file(start or Path.cwd())
    if path is not None:
        found |= {each.setting.key: each for each in _from_file(path)}
    found |= {each.setting.key: each for each in _from_env(os.environ if env is None else env)}
    return found


def find_file(start: Path) -> Path | None:
    """The nearest yaoki.toml, or pyproject.toml with a [tool.yaoki], here or in a folder above."""
    for folder in (start, *start.parents):
        for name in FILES:
            path = folder / name
            if path.is_file() and (name == "yaoki.toml" or _has_section(path)):
                return path
    return None


def _has_section(path: Path) -> bool:
    try:
        return "tool.yaoki" in path.read_text("utf-8", "replace")
    except OSError:
        return False


def _from_file(path: Path) -> Iterator[Found]:
    import tomllib

    try:
        text = path.read_text("utf-8")
        data = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", do="mend the file; nothing was started", path=str(path)) from error
    if path.name == "pyproject.toml":
        data = data.get("tool", {}).get("yaoki", {})
    for key, value in _flat(data):
        where = f"{path.name}:{_line_of(text, key)}"
        yield Found(known(key, where), convert(known(key, where), value, where), where)


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _line_of(text: str, key: str) -> int:
    """The line on which `key` is written, as well as a search can tell; TOML's parser does not say."""
    last = key.rpartition(".")[2]
    lines = [line.strip() for line in text.splitlines()]
    tables = [number for number, line in enumerate(lines) if line.startswith("[") and "yaoki" in line]
    begin = tables[0] if tables else 0
    return next((n + 1 for n in range(begin, len(lines)) if lines[n].partition("=")[0].strip().strip('"') in {last, key}), begin + 1)


def _from_env(env: Mapping[str, str]) -> Iterator[Found]:
    by_variable = {setting.variable: setting for setting in SETTINGS}
    for name in sorted(env):
        if name.startswith("YAOKI_") and name not in NOT_SETTINGS:
            if name not in by_variable:
                raise ConfigError(f"the environment sets {name}, which is not a setting{did_you_mean(name, by_variable)}",
                                  do=f"unset {name}, or name one of those that `yk config show` lists", key=name)
            setting = by_variable[name]
            yield Found(setting, convert(setting, env[name], f"env {name}"), f"env {name}")


def known(key: str, where: str) -> Setting:
    settings = table()
    if key not in settings:
        raise ConfigError(f"{where}: {key!r} is not a setting{did_you_mean(key, settings)}",
                          do="correct or remove it; `yk config show` lists what there is", key=key)
    return settings[key]


def convert(setting: Setting, value: Any, where: str) -> Value:
    """`value`, from TOML or from the environment, as the setting's kind. Raises ConfigError, naming `where`."""
    what = f"{where}: {setting.key}"
    if setting.kind == "duration":
        return parse_duration(value, what)
    if setting.kind == "list":
        return _as_list(value, what)
    if setting.kind == "count":
        return _as_count(value, what)
    if setting.kind == "switch":
        return _as_switch(value, what)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{what} is a text, not {value!r}", do=f"for example {setting.key} = {setting.default!r}")
    return value


def _as_list(value: Any, what: str) -> list[str]:
    if isinstance(value, str):
        return [each.strip() for each in value.split(",") if each.strip()]
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return list(value)
    raise ConfigError(f"{what} is a list of texts, not {value!r}", do='write ["a", "b"]; in the environment a,b')


def _as_count(value: Any, what: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str) and value.isdecimal() and int(value) > 0:
        return int(value)
    raise ConfigError(f"{what} is a whole number above 0, not {value!r}", do="write digits only, for example 256")


def _as_switch(value: Any, what: str) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in {"1", "true", "yes", "on", "0", "false", "no", "off"}:
        return str(value).lower() in {"1", "true", "yes", "on"}
    raise ConfigError(f"{what} is true or false, not {value!r}", do="write true or false")
