"""Events: nothing while nobody listens, everything to those who do, and a listener cannot hurt the call it watches."""

from __future__ import annotations

import logging
import threading

import msgspec
import pytest

from virtual_time import Clock
from yaoki import events, runtime
from yaoki.events import AttemptFailed, BreakerChanged, CallFinished, Event


def finished(**changes: object) -> CallFinished:
    return CallFinished(**{"service": "hotel", "outcome": "ok", "duration_s": 0.1, **changes})  # type: ignore[arg-type]


def every_kind() -> list[type[Event]]:
    found, queue = [], [Event]
    while queue:
        kind = queue.pop()
        found.append(kind)
        queue += kind.__subclasses__()
    return found


def test_nobody_listening_costs_nothing_and_says_so() -> None:
    assert not events.wanted()
    with events.listen(print):
        assert events.wanted()
    assert not events.wanted()


def test_a_listener_hears_its_kinds_in_order_until_it_ends() -> None:
    heard: list[Event] = []
    end = events.subscribe(heard.append, kinds=(CallFinished,))
    events.emit(finished(outcome="failed"))
    events.emit(BreakerChanged(service="hotel", before="closed", after="open", reason="x"))
    events.emit(finished())
    end()
    end()
    events.emit(finished())
    assert [each.outcome for each in heard] == ["failed", "ok"]  # type: ignore[attr-defined]


def test_a_listener_that_fails_is_logged_and_neither_the_call_nor_the_others_notice(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("listener")

    with caplog.at_level(logging.ERROR, logger="yaoki.events"), events.listen(broken), events.listen(heard.append):
        events.emit(finished())
    assert len(heard) == 1
    assert "listener" in caplog.text


def test_listeners_may_come_and_go_while_events_are_told() -> None:
    heard: list[Event] = []

    def once(event: Event) -> None:
        heard.append(event)
        end()

    end = events.subscribe(once)
    events.emit(finished())
    events.emit(finished())
    assert len(heard) == 1


def test_many_threads_may_listen_and_tell_at_once() -> None:
    counts = [0] * 4

    def work(index: int) -> None:
        for _ in range(200):
            with events.listen(lambda _: counts.__setitem__(index, counts[index] + 1), kinds=(CallFinished,)):
                events.emit(finished())

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert all(count >= 200 for count in counts)
    assert not events.wanted()


def test_an_event_is_stamped_with_the_runtimes_wall_clock_and_cannot_be_changed() -> None:
    with runtime.use(Clock()) as clock:
        event = finished()
        assert event.at == clock.unix_time()
    with pytest.raises(AttributeError):
        event.outcome = "failed"  # type: ignore[misc]


def test_an_event_is_one_line_of_json_with_its_kind() -> None:
    event = AttemptFailed(service="hotel\n", attempt=2, error="ReadTimeout", classification="ambiguous", at=1.5)
    text = events.to_json(event)
    assert b"\n" not in text
    assert msgspec.json.decode(text) == {"event": "AttemptFailed", "at": 1.5, "service": "hotel\n", "attempt": 2, "error": "ReadTimeout",
                                         "classification": "ambiguous", "duration_s": 0.0}


@pytest.mark.parametrize("kind", every_kind(), ids=lambda kind: kind.__name__)
def test_every_kind_is_frozen_documented_or_plain_and_has_no_room_for_secrets(kind: type[Event]) -> None:
    assert kind.__struct_config__.frozen
    assert kind.__struct_config__.tag == kind.__name__
    assert not {"args", "kwargs", "result", "headers", "body", "payload", "input"} & set(kind.__struct_fields__)
