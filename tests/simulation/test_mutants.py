"""Our own engine with one line broken: the explorer must find each mutant, or its silence about the real one means nothing."""

from __future__ import annotations

import msgspec
import pytest

from simulation import sagas
from yaoki.effect import Effect
from yaoki.explore import explore
from yaoki.saga import attempt
from yaoki.saga.driver import Driver
from yaoki.saga.engine.intake import Intake
from yaoki.saga.journal.memory import MemoryJournal
from yaoki.saga.machine import Machine
from yaoki.saga.retrying import Retrying


def doubt_is_forgotten(monkeypatch):
    """A failed step counts as never happened, whatever the error."""
    real = attempt.judge
    monkeypatch.setattr(attempt, "judge", lambda error: msgspec.structs.replace(real(error), in_doubt=False))


def every_attempt_has_its_own_key(monkeypatch):
    monkeypatch.setattr(Effect, "key", property(lambda effect: f"{effect.run}/{effect.step}/{effect.attempt}"))


def recovery_takes_nothing_up(monkeypatch):
    monkeypatch.setattr(Intake, "feed", lambda intake: None)


def steps_of_a_dead_process_are_not_settled(monkeypatch):
    monkeypatch.setattr(Driver, "_lost", lambda driver: [])


def an_abort_forgets_what_had_been_started(monkeypatch):
    monkeypatch.setattr(Driver, "_started", lambda driver: ())


def undo_is_tried_once(monkeypatch):
    real = attempt.Attempts.__init__

    def init(self, driver, step, *, undo):
        real(self, driver, step, undo=undo)
        if undo:
            self._retrying = Retrying(attempts=1)

    monkeypatch.setattr(attempt.Attempts, "__init__", init)


def a_step_in_doubt_is_undone_as_if_it_were_clear(monkeypatch):
    real = Machine._abort

    def abort(machine, record):
        real(machine, msgspec.structs.replace(record, started=()))

    monkeypatch.setattr(Machine, "_abort", abort)


def a_record_is_dropped_now_and_then(monkeypatch):
    real = MemoryJournal._append

    def append(journal, entry):
        if any(record.kind == "undone" for record in entry.records):
            entry = msgspec.structs.replace(entry, records=())
        real(journal, entry)

    monkeypatch.setattr(MemoryJournal, "_append", append)


MUTANTS = [
    (doubt_is_forgotten, "diamond", "all_or_nothing"),
    (every_attempt_has_its_own_key, "diamond", "no_double_effect"),
    (recovery_takes_nothing_up, "diamond", "every_run_ends"),
    (steps_of_a_dead_process_are_not_settled, "sides, one declined", "every_run_ends"),
    (an_abort_forgets_what_had_been_started, "sides, one declined", "all_or_nothing"),
    (undo_is_tried_once, "chain that is declined", "every_run_ends"),
    (a_step_in_doubt_is_undone_as_if_it_were_clear, "sides, one declined", "all_or_nothing"),
    (a_record_is_dropped_now_and_then, "chain that is declined", "every_run_ends"),
]


@pytest.mark.parametrize(("mutate", "saga", "expected"), MUTANTS, ids=[mutant[0].__name__ for mutant in MUTANTS])
def test_the_mutant_is_found(monkeypatch, mutate, saga, expected):
    mutate(monkeypatch)
    for depth in (1, 2):
        # These find all of them; a run that hangs takes long to be sure of, so no more than needed.
        report = explore(sagas.ALL[saga](), faults=depth, kinds=["crash", "call.lost_ack", "dep.outage:call.reject"], most=1000, most_broken=8)
        found = {invariant for signature in report.signatures for invariant in signature}
        if expected in found:
            return
    raise AssertionError(f"{mutate.__name__} survives: {found or 'nothing was found'}\n{report.summary()}")
