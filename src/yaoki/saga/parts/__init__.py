"""Steps that are made of parts: a call for each item, one of several alternatives, whatever a function decides as it goes.

    state.py      the fold: which parts were begun, are done, have failed, are undone (pure; a part of the machine)
    attempts.py   the attempts of one part
    crew.py       parts side by side, a bounded number of them; what they come to is written together
    undoing.py    undoes what is left of a step's parts
    each.py · first_of.py · flow.py    the three kinds of such steps

A part is called `step/part`, in records as in keys. Its beginning is recorded before it is begun, so that exactly what may have
happened is undone; the beginnings of some parts go out with the ends of others, so this costs no commit of its own.
"""
