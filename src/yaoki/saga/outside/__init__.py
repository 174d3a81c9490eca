"""What the outside world says to runs: answers, and results of steps that it completes. Said once or twice, early or late.

    seen.py      a run as the journal has it, folded
    answers.py   an answer to a step that waits: is it recorded, does another one count, is it too late?
    token.py     what a step hands out: signed, for one attempt of one step of one run
    completing.py  what may be said by a token, and what has become of it; external.py  the driver's side of it
    folded.py    what a machine knows of all this; doors.py  what an app offers

Nothing here drives a run. What is said becomes a request in the journal; the run's driver records it; and whoever said it
learns from the history what has become of it.
"""
