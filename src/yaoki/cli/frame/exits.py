"""What the exit code of a command says. Scripts rely on it, so a number never changes its meaning."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How a command ended. 1 and 2 differ so that a script can tell "it looked and found" from "it could not look"."""

    OK = 0
    FINDING = 1  # it did its work, and what it found is not as it should be
    USAGE = 2  # it could not begin: words, settings, input or store
    INCONCLUSIVE = 3  # it did its work and cannot say
    REFUSED = 4  # a safety guard said no
    BUG = 70  # Yaoki's own mistake (EX_SOFTWARE of sysexits.h)
    INTERRUPTED = 130  # 128 + SIGINT, as shells say it
    PIPE_CLOSED = 141  # 128 + SIGPIPE: the reader (`head`) has seen enough
    TERMINATED = 143  # 128 + SIGTERM
