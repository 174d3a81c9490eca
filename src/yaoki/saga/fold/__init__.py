"""What a history comes to, record by record: the machine's inside. `machine.py` is its face, and the only one that others use.

    state.py      the fields, and the questions that all of it asks
    undoing.py    what an abort and a retry from a step take back, and in which order
    making.py     what becomes of steps that are made: done, failed, blocked, parked

One class in three chapters, each built on the one before. Pure.
"""
