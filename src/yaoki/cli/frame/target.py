"""`MODULE:SAGA`, or `FILE.py:SAGA`, as the saga that it names, with every way in which it can fail to name one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from yaoki.errors import DefinitionError, UsageError, YaokiError
from yaoki.saga.define import Saga
from yaoki.text import did_you_mean


def load_saga(target: str) -> Saga[Any]:
    """The saga. SAGA may be left out where the module has only one.

    Raises:
        UsageError: there is no such module, or it names no saga.
        DefinitionError: the module, or the saga in it, is wrong.
    """
    where, _, name = target.rpartition(":") if ":" in target else (target, "", "")
    if not where:
        raise UsageError(f"{target!r} names no module", do="write MODULE:SAGA, for example trips:book_trip")
    module = load_module(where)
    saga = _named(module, name) if name else _only(module)
    _ = saga.graph  # checked now, and not when the first run starts
    return saga


def load_module(where: str) -> ModuleType:
    """Import a module by its name or by its file, with the current folder on the path as `python -m` has it."""
    if not where.endswith(".py") and (where.startswith(".") or "/" in where):
        raise UsageError(f"{where!r} is neither a module nor a file",
                         do=f"write the module as Python imports it ({where.strip('./').replace('/', '.')}), or the file with its .py")
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except YaokiError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (where == error.name or where.startswith(error.name + ".")):
            raise UsageError(f"there is no module {error.name!r} here{did_you_mean(error.name, _modules_here())}",
                             do=f"go to the folder that holds it, or set PYTHONPATH (here is {Path.cwd()})") from error
        raise _broken(where, error) from error
    except SystemExit as error:
        raise DefinitionError(f"{where} ended the program while it was imported",
                              do='put what it runs under `if __name__ == "__main__":`') from error
    except Exception as error:
        raise _broken(where, error) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", do="check the path")
    # Under its own name and with its own folder on the path, so that it can import its neighbours.
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _broken(where: str, error: BaseException) -> DefinitionError:
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if "importlib" not in frame.filename), None)
    at = f" ({last.filename}:{last.lineno})" if last else ""
    if isinstance(error, SyntaxError) and error.filename:
        at = f" ({error.filename}:{error.lineno})"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return DefinitionError(f"{where} cannot be imported: {type(error).__name__}: {text}{at}", do="mend it; nothing was started")


def _named(module: ModuleType, name: str) -> Saga[Any]:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    sagas = _sagas(module)
    if found is None:
        raise UsageError(f"module {module.__name__!r} has no {name!r}{did_you_mean(name, sagas)}", do=_choice(module, sagas))
    if not isinstance(found, Saga):
        step = f"; it is a step of the saga {found.saga.name!r}" if isinstance(getattr(found, "saga", None), Saga) else ""
        raise UsageError(f"{module.__name__}:{name} is not a saga but {'a class' if isinstance(found, type) else _a(type(found).__name__)}{step}", do=_choice(module, sagas))
    return found


def _only(module: ModuleType) -> Saga[Any]:
    sagas = _sagas(module)
    if len(sagas) != 1:
        many = f"has {len(sagas)} sagas" if sagas else "has no saga"
        raise UsageError(f"module {module.__name__!r} {many}", do=_choice(module, sagas))
    return next(iter(sagas.values()))


def _sagas(module: ModuleType) -> dict[str, Saga[Any]]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Saga)}


def _choice(module: ModuleType, sagas: Iterable[str]) -> str:
    names = [f"{module.__name__}:{name}" for name in sagas]
    return f"name one of its sagas: {', '.join(names)}" if names else 'define one there: Saga("name", input=...)'


def _modules_here() -> list[str]:
    return [path.stem for path in Path.cwd().glob("*.py")]


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
