"""One exploration on several cores: each process executes its share of the plans and sends its report as JSON.

The plans are numbered in an order that every process computes for itself, and process i of n takes every n-th; so nothing
has to be shared, and the merged report is the same for the same number of jobs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from yaoki.explore.report import Report


def explore_in_jobs(make: Callable[[tuple[int, int]], Report], jobs: int) -> Report:
    """Run `make((i, jobs))` in `jobs` processes, this one among them, and merge what they report.

    Raises:
        ChildProcessError: a process ended without a report.
    """
    children = [_fork(make, number, jobs) for number in range(1, jobs)]
    report = make((0, jobs))
    for pid, pipe in children:
        with os.fdopen(pipe, "rb") as stream:
            data = stream.read()
        _, status = os.waitpid(pid, 0)
        if status or not data:
            raise ChildProcessError(f"job {pid} ended without a report (status {status})")
        report.merge(Report.from_dict(msgspec.json.decode(data)))
    report.finish()
    return report


def _fork(make: Callable[[tuple[int, int]], Report], number: int, jobs: int) -> tuple[int, int]:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 1
    try:
        os.close(reading)
        data: Any = make((number, jobs)).to_dict()
        with os.fdopen(writing, "wb") as stream:
            stream.write(msgspec.json.encode(data))
        code = 0
    finally:
        os._exit(code)  # no clean-up of the parent's in a child
