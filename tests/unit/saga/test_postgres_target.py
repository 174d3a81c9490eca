"""The journal's address on PostgreSQL: our own words are taken out, and a password is never shown."""

from __future__ import annotations

import pytest

from yaoki.errors import ConfigError
from yaoki.saga.journal.postgres.link import Target


def test_our_words_are_taken_out_and_the_drivers_stay():
    target = Target.of("postgresql://app@db/trips?lease=30s&bouncer=yes&target_session_attrs=read-write")
    assert (target.dsn, target.lease_s, target.bouncer) == ("postgresql://app@db/trips?target_session_attrs=read-write", 30.0, True)


@pytest.mark.parametrize(("url", "shown"), [
    ("postgresql://app:secret@db:5433/trips", "db:5433/trips"),
    ("postgresql://app:s%40crét@db1:5432,db2:5433/trips?lease=5", "db1:5432,db2:5433/trips"),
    ("postgresql:///trips?host=/run/postgresql", "localhost/trips"),
])
def test_it_is_shown_without_its_password_with_all_its_hosts(url: str, shown: str):
    assert Target.of(url).shown == shown


@pytest.mark.parametrize("words", ["lease=soon", "lease=0.5", "bouncer=perhaps"])
def test_what_is_no_setting_is_refused_with_what_it_takes(words: str):
    with pytest.raises(ConfigError) as caught:
        Target.of(f"postgresql://db/trips?{words}")
    assert words.partition("=")[2] in str(caught.value)
    assert caught.value.do
