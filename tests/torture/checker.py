"""Reads the journal and the effects, and says what is wrong. It uses nothing of the engine: tables, lines, and the rules."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import asyncpg

from torture.compound import wrong_with_children, wrong_with_parts
from torture.errands import wrong_with_clockwork, wrong_with_errands
from torture.sagas import tickets_in
from torture.service import effects_in

STEPS = ("hotel", "flight", "payment", "mail")
"""That have their effect in the service, whatever the run's input."""
FENCED = {*STEPS, "insurance", "debit", "ticket"}
"""Whose results say under which fence they were made."""


async def check(url: str, folder: Path, expected: dict[str, str], cancelled: set[str]) -> tuple[list[str], dict[str, Any]]:
    """What is wrong, and figures. `expected`: by run, the step that says no, or "". cancelled: errands that somebody asked to cancel."""
    made: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))  # by run, and by step
    effects: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for key, what, fence in effects_in(folder):
        effects[key].append((what, fence))
        run, _, step = key.partition("/")
        made[run][step].add(what)
    connection = await asyncpg.connect(url)
    try:
        runs = await connection.fetch("SELECT no, id, saga, state, fence, input, reason FROM yaoki.run")
        records = await connection.fetch("SELECT run, seq, kind, step, data FROM yaoki.record ORDER BY run, seq")
        debits = Counter(row["run"] for row in await connection.fetch("SELECT run FROM public.ledger"))
        workers = await connection.fetch("SELECT no, name, state, batch, last_batch FROM yaoki.worker")
        beside = await wrong_with_errands(connection, runs, made, cancelled) + await wrong_with_clockwork(connection, runs)
    finally:
        await connection.close()
    histories: dict[int, list[Any]] = defaultdict(list)
    for record in records:
        histories[record["run"]].append(record)
    tickets = Counter(tickets_in(folder))
    everybody, runs = runs, [run for run in runs if run["saga"] == "trips"]
    family = [run for run in everybody if run["saga"] in {"trips", "covers"}]
    wrong = beside + wrong_with_children(family) + [each for run in runs for each in wrong_with_parts(run["id"], run["state"], made[run["id"]])]
    wrong += [each for run in runs for each in _wrong_with(run, histories[run["no"]], effects, expected)]
    for run in runs:
        recorded = sum(record["kind"] == "done" and record["step"] == "debit" for record in histories[run["no"]])
        if debits[run["id"]] != recorded:
            wrong.append(f"run {run['id']} has {debits[run['id']]} debits, and {recorded} records of one: they are one transaction")
        wrong += _wrong_with_answers(run, histories[run["no"]], tickets[f"{run['id']}/ticket"])
    wrong += [f"run {run} was accepted and is gone" for run in expected.keys() - {run["id"] for run in runs}]
    wrong += [f"worker {each['name']} ({each['no']}) committed {each['batch'] - each['last_batch']} batches after its death"
              for each in workers if each["state"] == "dead" and each["last_batch"] is not None and each["batch"] > each["last_batch"]]
    happened = Counter(json.loads(line)["event"] for path in folder.glob("events-*.log") for line in path.read_text().splitlines())
    sagas = Counter(run["saga"] for run in everybody)
    figures = {"runs": len(runs), "children": sagas["covers"], "errands": sagas["errands"], "fired by the schedule": sagas["clockwork"], "records": len(records), "states": dict(Counter(run["state"] for run in everybody)),
               "taken over": sum(run["fence"] > 1 for run in runs), "incarnations": len(workers),
               "dead": sum(each["state"] == "dead" for each in workers), "effects": sum(map(len, effects.values())),
               "repeated effects": sum(len(each) - len({what for what, _ in each}) for each in effects.values()),
               "refused batches": happened["BatchRefused"], "doubts settled": happened["DoubtSettled"], "fenced": happened["WorkerFenced"]}
    return wrong, figures


def _wrong_with_answers(run: Any, history: list[Any], tickets: int) -> list[str]:
    """What must have happened at most once, what somebody said, and what was not wanted."""
    name, wrong = run["id"], []
    wanted = 1 if run["state"] == "completed" else 0
    if tickets != wanted:
        wrong.append(f"run {name} is {run['state']}, and has {tickets} tickets of a service that makes each one it is asked for")
    said = [record["data"] for record in history if record["kind"] == "done" and record["step"] == "visa"]
    if any(answer != b'"yes"' for answer in said):
        wrong.append(f"run {name} was answered yes, and was told {said}")
    insured = json.loads(run["input"])["insured"]
    ends = {record["kind"] for record in history if record["step"] == "insurance" and record["kind"] in {"done", "skipped"}}
    if run["state"] == "completed" and ends != {"done" if insured else "skipped"}:
        wrong.append(f"run {name} is {'' if insured else 'not '}insured, and its history says {sorted(ends)}")
    return wrong


def _wrong_with(run: Any, history: list[Any], effects: dict[str, list[tuple[str, int]]], expected: dict[str, str]) -> list[str]:
    name = run["id"]
    wrong = []
    if [record["seq"] for record in history] != list(range(len(history))):
        wrong.append(f"run {name}: its records are not numbered without gaps")
    fences = [json.loads(record["data"])["fence"] for record in history if record["kind"] == "done" and record["step"] in FENCED]
    if fences != sorted(fences):
        wrong.append(f"run {name}: a record of an old owner after the new owner's first: {fences}")
    if any(fence > run["fence"] for fence in fences):
        wrong.append(f"run {name}: a record under a fence that nobody was given")
    done = [record["step"] for record in history if record["kind"] == "done"]
    if len(done) != len(set(done)):
        wrong.append(f"run {name}: a step is done twice: {done}")
    fails = expected.get(name)
    wanted = "undone" if fails else "completed"
    if run["state"] != wanted:
        return [*wrong, f"run {name} is {run['state']}, not {wanted}: {run['reason']}"]
    for step in STEPS:
        made = {what for what, _ in effects.get(f"{name}/{step}", [])}
        if wanted == "completed" and made != {"do"}:
            wrong.append(f"run {name} completed, and the effect of {step} is {sorted(made) or 'missing'}")
        if wanted == "undone" and made == {"do"}:
            wrong.append(f"run {name} was undone, and the effect of {step} is still there")
    insured = json.loads(run["input"])["insured"]
    if {what for what, _ in effects.get(f"{name}/insurance", [])} != ({"do"} if insured and wanted == "completed" else set()):
        wrong.append(f"run {name} is {run['state']}, and the effect of insurance is not as it should be")
    wrong += [f"run {name}: {step} is recorded as done, and had no effect" for step in done
              if step in STEPS and "do" not in {what for what, _ in effects.get(f"{name}/{step}", [])}]
    return wrong
