"""Tables, durations and numbers as people read them."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yaoki.cli.frame.durations import parse_duration, parse_instant, show_age, show_duration, show_instant
from yaoki.cli.frame.tables import Cell, Column, layout
from yaoki.errors import ConfigError
from yaoki.text import columns_of, cut, grouped, printable, without_password


def test_a_table_aligns_columns_and_puts_numbers_to_the_right():
    lines = [click.unstyle(line) for line in layout(("run", Column("took", right=True), "n"), [("a", "4 s", 5), ("bcd", "10 ms", 12)])]
    assert lines == ["run   took   n",
                     "a      4 s   5",
                     "bcd  10 ms  12"]


def test_an_empty_cell_is_a_dash():
    assert click.unstyle(layout(("a", "b"), [("", None)])[1]) == "-  -"


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=60)), min_size=1), st.integers(40, 90))
def test_a_table_fits_the_terminal_and_every_line_is_one_line(rows: list[tuple[str, str]], width: int):
    for line in layout(("name", "why"), rows, width=width):
        plain = click.unstyle(line)
        assert columns_of(plain) <= width
        assert plain.isprintable()


def test_what_a_user_stored_cannot_drive_the_terminal():
    line = layout(("why",), [("\x1b[2Jgone\nx",)])[1]
    assert click.unstyle(line) == "�[2Jgone␤x"


def test_wide_text_is_cut_by_columns():
    assert cut("東京から京都", 7) == "東京か…"
    assert columns_of("東京か…") == 7
    assert cut("short", 5) == "short"


def test_numbers_have_their_thousands_apart():
    assert [grouped(n) for n in (0, 999, 1000, 1234567.4)] == ["0", "999", "1 000", "1 234 567"]
    assert printable("a\tb") == "a�b"


@pytest.mark.parametrize(("text", "seconds"), [
    ("250ms", 0.25), ("2s", 2), ("5m", 300), ("1h30m", 5400), ("30d", 2_592_000), ("1.5h", 5400), ("0", 0), ("2 s", 2), ("1w", 604_800),
])
def test_durations_are_read(text: str, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5x", "m", "-3s", "3s!", "1e3s", "s5"])
def test_a_wrong_duration_is_refused_with_examples(text: str):
    with pytest.raises(ConfigError, match="--limit is a length of time") as caught:
        parse_duration(text, "--limit")
    assert "250ms" in caught.value.do


@given(st.floats(0.001, 10**7))
def test_a_duration_shown_is_near_what_it_was(seconds: float):
    shown = show_duration(seconds)
    assert parse_duration(shown) == pytest.approx(seconds, rel=0.05, abs=0.05)


def test_durations_are_shown_with_two_units_at_most():
    shown = [show_duration(s) for s in (0.0121, 0.85, 4.2, 59.99, 185, 7800, 97_200, -5)]
    assert shown == ["12 ms", "850 ms", "4.2 s", "1 m 00 s", "3 m 05 s", "2 h 10 m", "1 d 3 h", "-5.0 s"]


def test_instants_are_lengths_back_from_now_or_dates():
    assert parse_instant("1h", 10_000.0) == 6_400.0
    assert parse_instant("2026-11-21", 0.0) == 1_795_219_200.0
    assert parse_instant("2026-11-21T09:30", 0.0) == parse_instant("2026-11-21T10:30+01:00", 0.0)
    with pytest.raises(ConfigError, match="--since"):
        parse_instant("yesterday", 0.0)


def test_ages_and_instants_are_shown():
    assert [show_age(100.0, now) for now in (100.2, 112.0, 285.0, 90.0)] == ["now", "12 s ago", "3 m 05 s ago", "now"]
    assert show_instant(1_795_219_200.25) == "2026-11-21T00:00:00.250Z"
    assert show_instant(0.0) == ""


@pytest.mark.parametrize(("url", "shown"), [
    ("postgresql://me:s3cr:et@host:5432/db", "postgresql://me:***@host:5432/db"), ("postgresql://me@host/db", "postgresql://me@host/db"),
    ("postgresql://host/db?user=me&password=s3cret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
    ("redis://:pw@h/0", "redis://:***@h/0"), ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
])
def test_no_password_is_printed(url: str, shown: str):
    assert without_password(url) == shown


def test_cells_have_colours():
    assert "\x1b[31m" in layout(("a",), [(Cell("x", "red"),)])[1]
