"""A run in memory: the driver's inside. `driver.py` is its loop, and what others use.

    keeping.py     its history: folded, and written with what follows from it
    resting.py     when there is nothing to do: parked, given back
    answering.py   what people ask of it, one after the other

One class in chapters, each built on the one before.
"""
