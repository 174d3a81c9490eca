"""Every coded error with its usual causes and its remedies: one table, of which `yk help CODE` and
`docs/reference/errors/` are made.

What the class itself says (its sentence, its `why`, whether it happened) is not said again here. After a change, write the
pages with

    python -m yaoki.cli.frame.catalogue docs/reference/errors
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from yaoki.errors import InDoubtError, YaokiError

# Modules that define errors with codes. A test looks for others.
HOMES = ("yaoki.errors", "yaoki.explore.dialect", "yaoki.explore.stuck", "yaoki.explore.fake", "yaoki.explore.store", "yaoki.explore.streams")

HAPPENED = {True: "Yes.", False: "Certainly not: nothing was done.", None: "Nobody knows."}


class Entry(NamedTuple):
    """What a page adds to the class: how the error usually comes about, and what to do, each a sentence."""

    causes: tuple[str, ...]
    do: tuple[str, ...]


ENTRIES: dict[str, Entry] = {
    # ── did it happen? no ────────────────────────────────────────────────────────────────────────────────────────────
    "YK-1000": Entry(("It is the root of all errors of Yaoki's, and is not raised itself.",),
                     ("Catch it to catch them all; catch one below it to know whether the effect happened.",)),
    "YK-1100": Entry(("A policy refused the call: an open breaker, a full bulkhead, no time left.", "The connection was refused."),
                     ("Try again later, or elsewhere: it can do no harm.",)),
    "YK-1101": Entry(("Too large a share of the calls in the window failed, or were slow.", "Somebody forced it open."),
                     ("Look at why the service fails; the breaker sends a probe after `retry_after` seconds by itself.",
                      "If it opens too readily, raise its `failure_rate` or its `minimum` of calls.")),
    "YK-1102": Entry(("The service answers so slowly that calls pile up.", "The bulkhead is smaller than the load that the service bears."),
                     ("Look at the service's latency before making the bulkhead larger.",
                      "Let callers wait a while: give it a `queue`.")),
    "YK-1103": Entry(("Earlier steps, attempts or waits used up the time.", "The caller's deadline, sent in a header, is nearly over."),
                     ("Look at who spent the time: the notes of the error name each attempt.",
                      "Give the whole operation more time, or each attempt less.")),
    "YK-1104": Entry(("More calls were made than the limiter allows.",),
                     ("Wait `retry_after` seconds, or raise the rate if the service allows more.",)),
    "YK-1105": Entry(("The service refuses calls, so a share of new ones is not even sent.",),
                     ("Nothing: the share falls as soon as the service accepts again.",)),
    "YK-1106": Entry(("The do was delayed in the network, and the run gave up and undid the step first.",),
                     ("Nothing: this is what keeps a late request from bringing back what was undone.",)),
    "YK-1107": Entry(("A retry arrived while its first request is still being worked on.",),
                     ("Try again in a moment with the same key: then it gets the first one's answer.",)),
    "YK-1108": Entry(("The program that pushes the data has been down for longer than the data is good for.",),
                     ("Look at why nothing is pushed; `age_s` says for how long.",)),
    # ── nobody knows ─────────────────────────────────────────────────────────────────────────────────────────────────
    "YK-1200": Entry(("The connection was lost after the request was sent.", "A proxy answered 502 or 504."),
                     ("Repeat it with the same idempotency key, or undo it: a saga does so by itself.",)),
    "YK-1201": Entry(("The service is slow, or the reply was lost.",),
                     ("Repeat it with the same idempotency key, or undo it.",
                      "If the service is usually that slow, give an attempt more time.")),
    # ── it arrived, and the answer was no ────────────────────────────────────────────────────────────────────────────
    "YK-1202": Entry(("The step is stuck, or does not call `heartbeat()` often enough.",),
                     ("Call `heartbeat()` more often than every `heartbeat=` seconds, or allow more of them.",
                      "A plain function that is given up goes on in its thread until it calls `heartbeat()` the next time.")),
    "YK-1300": Entry(("Sold out, card declined, not allowed.",), ("Ask for something else. Asking again changes nothing.",)),
    "YK-1301": Entry(("The service failed for longer than the retries last.",),
                     ("Read the cause and the notes: they have every attempt.",
                      "Retry more often or longer only if the service usually comes back in that time.")),
    # ── a person's mistake ───────────────────────────────────────────────────────────────────────────────────────────
    "YK-2000": Entry(("A word on the command line, or an argument in the code, is wrong.",), ("Do what the message says.",)),
    "YK-2001": Entry(("A key in yaoki.toml, pyproject.toml or the environment is misspelled, or its value is of the wrong kind.",
                      "An argument of a policy or of `yaoki.open` is out of range."),
                     ("`yk config show --origin` lists every setting and where it comes from.",
                      "Durations have a unit: 250ms, 2s, 5m, 30d.")),
    "YK-2002": Entry(("A step has no undo, and does not say that it needs none.", "A parameter names no step above it.",
                      "The module cannot be imported."),
                     ("The message names the function, its line and the remedy.",)),
    "YK-2003": Entry(("A line of the input file is not JSON, lacks a field, or has one of another type.",
                      "Two lines have one id and say different things."),
                     ("Mend the line that the message names, and start again: nothing was started.",
                      "`yk run --keep-going` starts the good lines and lists the bad ones.")),
    "YK-2004": Entry(("The program makes keys of too little: of the customer, say, and not of the order.",),
                     ("Make one key for each effect. The runs of a saga do so by themselves.",)),
    "YK-2010": Entry(("The connection commits every statement by itself (autocommit).",),
                     ("Begin a transaction, write the data and publish in it, and commit.",)),
    "YK-2011": Entry(("The store was opened with less durability than is asked for.",),
                     ("Open it with the durability that is asked for, or ask for less, knowing what may be lost.",)),
    "YK-2012": Entry(("A server forks its workers after the program was loaded (gunicorn --preload), and the handle is the parent's.",
                      "The journal is a SQLite file or in memory, so a child cannot have one of its own beside its parent."),
                     ("Open it in each worker: in gunicorn's `post_fork`, or when it is first used.",
                      "With a journal on PostgreSQL a forked process opens its own by itself.")),
    "YK-2013": Entry(("The run was undone, so nothing is left that a fork could begin with.", "The step needs another one that is not done."),
                     ("Fork it from an earlier step, or start a new run with the same input.",)),
    "YK-2014": Entry(("The run has ended, or undoes itself.", "It has passed its point of no return, or a step below that has no undo may have happened.",
                      "The step has not begun."),
                     ("Fork the run: that makes new effects, knowingly, and leaves the old ones.",
                      "`yk runs retry RUN STEP` repeats a blocked step by its old key.")),
    "YK-2015": Entry(("A step at the point of no return, or below it, has happened and has no undo.", "The run undoes itself already, or is undone.",
                      "It was started by another run, which counts on it."),
                     ("Write an undo for the step, deploy it, and ask again with `--past-pivot`: what has an undo by then is undone.",
                      "Leave it there knowingly: `yk runs undo RUN --past-pivot`; the history names what stays.",
                      "Undo the run that started this one; then this one is undone with it.")),
    "YK-2401": Entry(("A lock is taken twice, or an event is waited for that nobody sets.",),
                     ("The message names each task and the line on which it waits.",)),
    "YK-2402": Entry(("A retry has no limit, or a loop polls without waiting.",),
                     ("Give the retry a limit or a deadline; let the loop sleep through `yaoki.runtime`.",)),
    "YK-2403": Entry(("The code under exploration calls `time.time`, opens a socket, starts a thread or draws a random number.",),
                     ("Use `yaoki.runtime` for clock, randomness and threads, and the simulated services for the network.",)),
    "YK-2020": Entry(("The token was cut off or changed on its way.", "It was handed out by a saga on another journal."),
                     ("Send the token exactly as the step gave it out.", "Send it to the program that works on the same journal.")),
    # ── the store of runs ────────────────────────────────────────────────────────────────────────────────────────────
    "YK-3000": Entry(("The disk is full, the folder cannot be written, or the server cannot be reached.",),
                     ("Mend what the message names, and start again: every run goes on from its last acknowledged record.",
                      "`yk doctor` looks at the journal, the disk and the locks.")),
    "YK-3001": Entry(("Another `yk run`, worker or program of yours has the journal open.",),
                     ("Let it finish, or end it: a new one takes up where it stopped.",
                      "To look on while it runs, use `yk runs`.",
                      "For several processes on one journal, keep it in PostgreSQL.")),
    "YK-3002": Entry(("The path is that of another program's database.", "The file was cut or overwritten.",
                      "A newer Yaoki wrote it."),
                     ("Name another file; this one was not changed.",
                      "If it is your journal, restore the file, with its -wal file, from a backup.")),
    "YK-3003": Entry(("The process was paused, starved of CPU, or cut off from the database for longer than its lease.",),
                     ("Nothing: another worker goes on with its runs, and this one starts afresh.",
                      "If it comes often, give leases more time.")),
    "YK-3004": Entry(("The disk, its controller or memory turned a bit over.", "The file was edited by hand."),
                     ("Restore the file, with its -wal file, from a backup; other runs are not affected.",
                      "Check the disk: one bit seldom comes alone.")),
    # ── how a run ended ──────────────────────────────────────────────────────────────────────────────────────────────
    "YK-4000": Entry(("It is asked for the result of a run that has none.",), ("`yk runs show RUN` says where it is.",)),
    "YK-4001": Entry(("A step was declined, or failed for good.", "Somebody cancelled it, or its deadline passed."),
                     ("`yk runs show RUN` says what began it. Start it again under another id, if that helps.",)),
    "YK-4002": Entry(("The code of a step, or of an undo, has a bug.", "An undo failed for a day.",
                      "A step after the pivot was declined."),
                     ("`yk runs show RUN` names the step, its error, and the commands that end the block.",
                      "After a fix: `yk runs retry RUN`, or `yk runs retry --all --error TEXT` for all of one kind.",
                      "If a person settled it by hand: `yk runs resolve RUN STEP done --result JSON`, or `undone`.")),
    "YK-4003": Entry(("Ids are not unique: two orders have one number, say.", "The input of a line was changed after it was started."),
                     ("Give the new input an id of its own.", "`yk runs show RUN` prints the input that the run was started with.")),
    "YK-4004": Entry(("The id is misspelled, the run was purged, or it is in another journal.",),
                     ("`yk runs list --db URL` lists what is there.",)),
    "YK-4005": Entry(("A function that a flow calls was declined, or failed in each of its attempts.",),
                     ("Catch it in the flow's function to go on in another way; uncaught, it undoes the run.",
                      "`yk runs show RUN` names the inner step and its error.")),
    "YK-4010": Entry(("The step's time was over, or somebody cancelled the run, before the answer came.",
                      "The same token, or answer, was meant for another run."),
                     ("If something was done outside for this step, and the error does not say `taken_back`, take it back now.",
                      "Give the step more time (`timeout=`) if answers often come late.")),
    "YK-4011": Entry(("Two people, or two attempts of one service, answered differently.",),
                     ("Look at which answer counts: `yk runs show RUN`.", "If yours is right, cancel the run, or put it right by hand.")),
    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────
    "YK-5000": Entry(("It is the root of the errors about messages.",), ("Do what the message says.",)),
    "YK-5001": Entry(("The database cannot be reached or written, or it holds something else.",),
                     ("Mend what the message names. What was acknowledged is safe.",)),
    "YK-5002": Entry(("The broker is down, restarting, or cut off.",),
                     ("Nothing for a short while: the outbox sends until it is confirmed.", "If it stays, look at the broker.")),
    "YK-5003": Entry(("A newer program publishes already while this one still runs.",),
                     ("Deploy the version that knows it; the message waits.",)),
    "YK-5004": Entry(("The handler is slow or not running.",),
                     ("Ask for the result later, or wait longer: the request is stored and will be handled.",)),
    # ── ledger ───────────────────────────────────────────────────────────────────────────────────────────────────────
    "YK-6000": Entry(("It is the root of the errors about ledgers.",), ("Do what the message says.",)),
    "YK-6001": Entry(("Somebody else changed the key in between.",), ("Read it again, decide again, and write again.",)),
    "YK-6002": Entry(("Two writers used one version for different contents, or a copy was changed afterwards.",),
                     ("Compare the two that the message names, and correct the wrong one by a new version.",)),
    "YK-6003": Entry(("The source or the sink cannot be reached, or refuses to be read.",),
                     ("Mend the access, and audit again: until then nothing is known.",)),
    "YK-6004": Entry(("The audit compares the wrong table or bucket, or a whole period is missing.",),
                     ("Look at the findings first. If they are right, allow more repairs at once.",)),
    "YK-6005": Entry(("An older program meets a content that a newer one wrote.",
                      "An up-cast was dropped while contents of its schema are still there."),
                     ("Deploy the newer program, or give the up-cast back. `yk ledger schemas` says beforehand what could not be read.",)),
    # ── what simulated services answer ───────────────────────────────────────────────────────────────────────────────
    "YK-1190": Entry(("An exploration makes a service refuse once.",), ("Nothing: it is the experiment.",)),
    "YK-1391": Entry(("A simulated service was told to insist on a do before its undo.",), ("Nothing: it is the experiment.",)),
    "YK-1392": Entry(("Two simulated processes wrote one row.",), ("Nothing: it is the experiment.",)),
    "YK-1393": Entry(("A simulated service was told to answer that somebody was there first.",), ("Nothing: it is the experiment.",)),
    "YK-1394": Entry(("A simulated stream was told to forget a position.",), ("Nothing: it is the experiment.",)),
}


def by_code() -> dict[str, type[YaokiError]]:
    """Every error that has a code of its own, by code."""
    for home in HOMES:
        importlib.import_module(home)
    found: dict[str, type[YaokiError]] = {}
    queue: list[type[YaokiError]] = [YaokiError]
    while queue:
        kind = queue.pop()
        queue += kind.__subclasses__()
        if "code" in vars(kind) and kind.__module__ in HOMES:
            found[kind.code] = kind
    return dict(sorted(found.items()))


def page(code: str) -> str:
    """The page of one code, in Markdown. Raises KeyError."""
    kind = by_code()[code]
    entry = ENTRIES.get(code, Entry((), ()))
    parts = [f"# {code}: {kind.__name__}", inspect.getdoc(kind) or ""]
    if kind.why:
        parts += ["## Why", kind.why]
    if kind.happened is not None or issubclass(kind, InDoubtError):
        parts += ["## Did it happen?", HAPPENED[kind.happened]]
    if entry.causes:
        parts += ["## How it usually comes about", _bullets(entry.causes)]
    if entry.do:
        parts += ["## What to do", _bullets(entry.do)]
    parents = [each.__name__ for each in kind.__mro__[1:] if each not in {Exception, BaseException, object}]
    parts += ["## In code", f"`except {kind.__name__}` catches it" + (f"; so does `except {parents[0]}`." if parents else " and all below it.")]
    return "\n\n".join(part for part in parts if part) + "\n"


def index() -> str:
    """The page that lists all codes."""
    rows = [f"| [{code}]({code}.md) | `{kind.__name__}` | {_first_sentence(kind)} |" for code, kind in by_code().items()]
    return ("# Errors\n\nEvery error of Yaoki's has a code. `yk help CODE` prints its page. These pages are made from the classes and "
            "from `yaoki/cli/frame/catalogue.py`.\n\n| code | class | what happened |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n")


def _first_sentence(kind: type[YaokiError]) -> str:
    line = (inspect.getdoc(kind) or "").partition("\n")[0]
    return line.replace("|", "\\|")


def _bullets(sentences: tuple[str, ...]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def pages() -> Iterator[tuple[str, str]]:
    """(file name, text) of everything that belongs into `docs/reference/errors/`."""
    yield "README.md", index()
    for code in by_code():
        yield f"{code}.md", page(code)


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = dict(pages())
    for name, text in wanted.items():
        (folder / name).write_text(text, "utf-8")
    for path in folder.glob("YK-*.md"):
        if path.name not in wanted:
            path.unlink()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
