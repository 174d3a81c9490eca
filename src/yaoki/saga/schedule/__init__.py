"""Schedules: runs that are started by the clock, each instant once, over any number of workers and their crashes.

    app.schedule("nightly", report, cron="0 3 * * *", zone="Europe/Berlin", input=Report(...))

    cron.py      when: five fields in a zone, or every so many seconds (pure)
    plan.py      what to do about the instants that have come: start, leave out, keep for later (pure)
    book.py      the register in which all workers and the command line agree, by compare and set
    keeper.py    the shell in each worker: looks, decides, starts
"""

from yaoki.saga.schedule.cron import Cron, Every
from yaoki.saga.schedule.plan import Firing, Plan, Spec, decide

__all__ = ["Cron", "Every", "Firing", "Plan", "Spec", "decide"]
