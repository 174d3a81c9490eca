"""The engine: runs sagas on one journal, a bounded number of their runs in memory, the rest waiting as rows.

    start ──▶ journal.create ──durable──▶ room? ──yes──▶ a driver on the floor ──▶ ... ──▶ ended: the next one is taken up
                                             └────no───▶ waits in the journal ──▶ intake

    engine.py     opens, closes, breaks, and starts again when it was declared dead
    starting.py   makes a run durable, and decides who drives it
    intake.py     takes up what waits in the journal when there is room; holds back what a brake holds
    floor.py      the runs in memory, each with its driver and its task
    requests.py   what people ask for: cancel, resolve, signal
    kin.py        starts runs for runs, and carries what they say to each other
    waiters.py    who waits for which run
    watch.py      looks from time to time: what is due, asked for, stuck, stranded, to be tidied

The parts know their engine, and reach each other through it.
"""

from yaoki.saga.engine.engine import Engine

__all__ = ["Engine"]
