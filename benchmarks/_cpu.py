"""Processor time of this process and of a server beside it: hardly disturbed by what else the machine does."""

from __future__ import annotations

import os
import resource
from pathlib import Path


class Meter:
    """Reads the seconds that this process and others have used so far.

    Args:
        pids: of the others. Their children count, ended ones too. Needs `/proc`.
    """

    def __init__(self, *pids: int) -> None:
        self._pids = pids

    @classmethod
    def of_file(cls, pid_file: Path) -> Meter:
        """Of a server that wrote its process id into the first line of a file."""
        return cls(int(pid_file.read_text().split()[0]))

    def seconds(self) -> float:
        own = resource.getrusage(resource.RUSAGE_SELF)
        return own.ru_utime + own.ru_stime + self.others()

    def others(self) -> float:
        """Without this process."""
        used: dict[int, float] = {}
        children: dict[int, list[int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            pid = int(stat.parent.name)
            children.setdefault(int(fields[1]), []).append(pid)
            used[pid] = sum(int(each) for each in fields[11:15]) / os.sysconf("SC_CLK_TCK")
        total, family = 0.0, list(self._pids)
        while family:
            pid = family.pop()
            total += used.get(pid, 0.0)
            family += children.get(pid, [])
        return total
