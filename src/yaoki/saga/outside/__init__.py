"""What the outside world says to runs: answers, and results of steps that it completes. Said once or twice, early or late.

    seen.py      a run as the journal has it, folded
    answers.py   an answer to a step that waits: is it recorded, does another one count, is it too late?

Nothing here drives a run. What is said becomes a request in the journal; the run's driver records it; and whoever said it
learns from the history what has become of it.
"""
