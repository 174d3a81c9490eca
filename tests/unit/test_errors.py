"""Errors: a tree by *did it happen?*, and every one survives pickling and JSON with its figures and its advice."""

from __future__ import annotations

import copy
import importlib
import json
import pickle
import pkgutil
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import yaoki
from yaoki import errors
from yaoki.errors import InDoubtError, RefusedError, YaokiError


def every_kind() -> list[type[YaokiError]]:
    """All of them, those defined next to what raises them included."""
    for part in ("chaos", "explore", "ledger", "messages", "policies", "saga"):
        package = importlib.import_module(f"yaoki.{part}")
        for module in pkgutil.iter_modules(package.__path__):
            if module.name not in ("pytest_plugin", "postgres", "nats", "sqs"):
                try:
                    importlib.import_module(f"yaoki.{part}.{module.name}")
                except ModuleNotFoundError as error:
                    assert not str(error.name).startswith("yaoki"), error  # noqa: PT017
    return sorted((kind for kind in errors._by_name().values() if kind.__module__.startswith("yaoki")), key=lambda kind: kind.__name__)


KINDS = every_kind()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_copying_and_json_with_everything_it_says(kind: type[YaokiError]) -> None:
    error = errors._rebuild(kind, "what happened", "what to do", {"retry_after": 2.5, "service": "hotel", "rows": [1, None]})
    error.add_note("seen twice")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert (str(twin), twin.do, twin.fields, twin.retry_after) == ("what happened", "what to do", error.fields, 2.5)
        assert twin.__notes__ == ["seen twice"]
    data = json.loads(json.dumps(error.to_dict()))
    assert data["code"] == kind.code
    twin = YaokiError.from_dict(data)
    assert (type(twin), twin.to_dict()) == (kind, error.to_dict())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_says_whether_it_happened_as_its_place_in_the_tree_does(kind: type[YaokiError]) -> None:
    if issubclass(kind, InDoubtError):
        assert kind.happened is None
        assert not issubclass(kind, RefusedError)
    if issubclass(kind, RefusedError):
        assert kind.happened is False
    assert kind.__doc__
    assert kind.code.startswith("YK-")


def test_no_two_errors_share_a_code() -> None:
    codes = Counter(kind.code for kind in KINDS if "code" in vars(kind))
    assert [code for code, count in codes.items() if count > 1] == []


json_values = st.recursive(st.none() | st.booleans() | st.integers(-2**53, 2**53) | st.floats(allow_nan=False) | st.text(),
                           lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5)


@given(st.text(), st.text(), st.dictionaries(st.from_regex(r"[a-z_]{3,9}", fullmatch=True).filter(
    lambda name: name not in ("message", "type", "code", "fields", "self", "with_note")), json_values, max_size=4))
def test_any_message_and_figures_come_back_from_json(message: str, do: str, fields: dict[str, object]) -> None:
    error = errors._rebuild(errors.BreakerOpenError, message, do, {name: value for name, value in fields.items() if name != "do"})
    twin = YaokiError.from_dict(json.loads(json.dumps(error.to_dict())))
    assert twin.to_dict() == error.to_dict()


def test_an_error_of_an_unknown_kind_comes_back_as_a_plain_one() -> None:
    twin = YaokiError.from_dict({"type": "FromTheFutureError", "code": "YK-9999", "message": "hm", "do": "upgrade", "depth": 3})
    assert type(twin) is YaokiError
    assert (str(twin), twin.do, twin.depth) == ("hm", "upgrade", 3)
    assert YaokiError.from_dict({}).message == ""


def test_a_missing_figure_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such"):
        _ = errors.BreakerOpenError("x").no_such


def test_timeouts_are_python_timeouts_too() -> None:
    assert issubclass(errors.AttemptTimeoutError, TimeoutError)
    assert issubclass(errors.DeadlineError, TimeoutError)
    assert yaoki.__version__
