"""Lines of a file as inputs: each wrong one named by its number, before anything is started."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaoki import Saga
from yaoki.cli.run.inputs import SHOWN, Input, Lines
from yaoki.errors import InputError


class Card(msgspec.Struct):
    number: str


class Order(msgspec.Struct):
    id: str
    card: Card
    qty: int = 1


ORDER = Saga("order", input=Order)
GOOD = b'{"id":"a","card":{"number":"1"}}'


def lines(data: bytes, *, id_field: str = "id", keep_going: bool = False) -> Lines:
    found = Lines("x.jsonl", io.BytesIO(data), ORDER, id_field, keep_going=keep_going)
    found.check()
    return found


def test_good_lines_are_typed_and_carry_their_id_and_number():
    found = lines(b"\n" + GOOD + b"\n\n" + GOOD.replace(b'"a"', b'"b"'))
    assert found.total == 2
    assert list(found) == [Input(2, "a", Order("a", Card("1"))), Input(4, "b", Order("b", Card("1")))]


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_no_mistake():
    assert lines(b"\xef\xbb\xbf" + GOOD + b"\r\n").total == 1


@pytest.mark.parametrize(("line", "what"), [
    (b'{"id": "b", ', "broken JSON"),
    (b"id,card", "broken JSON"),
    (b'{"id":"b","card":{"number":"1"}} x', "broken JSON"),
    (b"\xff\xfe", "broken JSON"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"id":"b","card":{}}', "missing required field `number` - at `$.card`"),
    (b'{"id":"b"}', "missing required field `card`"),
    (b'{"id":"b","card":{"number":7}}', "expected `str`, got `int` - at `$.card.number`"),
    (b'{"card":{"number":"1"}}', "field `$.id` is missing"),
    (b'{"id":"","card":{"number":"1"}}', "`$.id` names the run"),
    (b'{"id":true,"card":{"number":"1"}}', "`$.id` names the run"),
    (b"[1]", "`$` is no object"),
    (b'{"id":"a","card":{"number":"2"}}', "id 'a' is that of line 1 already, which says something else"),
])
def test_a_bad_line_is_named_by_its_number_and_says_what_is_wrong(line: bytes, what: str):
    with pytest.raises(InputError) as caught:
        lines(GOOD + b"\n" + line + b"\n")
    assert str(caught.value).startswith("x.jsonl:2: ")
    assert what in str(caught.value)
    assert "nothing was started" in caught.value.do


def test_many_bad_lines_are_counted_and_the_first_ones_shown():
    with pytest.raises(InputError) as caught:
        lines(b"x\n" * 20)
    notes = caught.value.__notes__
    assert len(notes) == SHOWN
    assert notes[-1] == f"and {20 - SHOWN} bad lines more"
    assert caught.value.bad_lines == 20


def test_keep_going_leaves_out_the_bad_lines_and_knows_them():
    found = lines(GOOD + b"\nx\n", keep_going=True)
    assert [each.id for each in found] == ["a"]
    assert (found.bad_count, found.bad[0].line, found.total) == (1, 2, 1)


def test_a_repeated_line_is_one_run():
    found = lines(GOOD + b"\n" + GOOD)
    assert [each.line for each in found] == [1]
    assert found.repeated == 1


def test_the_id_may_be_a_number_or_deeper_down():
    class Trip(msgspec.Struct):
        order: dict[str, int]

    found = Lines("x", io.BytesIO(b'{"order":{"no":7}}'), Saga("trip", input=Trip), "order.no", keep_going=False)
    assert [each.id for each in found] == ["7"]


def test_a_file_that_is_not_there_is_the_systems_own_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Lines.opened(str(tmp_path / "no.jsonl"), ORDER, "id", keep_going=False)


@given(st.lists(st.binary(max_size=40).filter(lambda b: b"\n" not in b)))
def test_no_bytes_at_all_do_anything_but_be_good_or_named(rows: list[bytes]):
    found = lines(b"\n".join(rows), keep_going=True)
    good = list(found)
    assert len(good) + found.bad_count + found.repeated == sum(1 for n, row in enumerate(b"\n".join(rows).split(b"\n"))
                                                              if (row.removeprefix(b"\xef\xbb\xbf") if n == 0 else row).strip())
