"""Python, SQLite, the disk: can this machine keep what it acknowledges?"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from yaoki import runtime
from yaoki.cli.doctor.check import Check, Level
from yaoki.cli.frame.durations import show_duration

# UPDATE ... FROM (3.33) and RETURNING (3.35), which the journal uses. sqlite.org/changes.html
LEAST_SQLITE = (3, 35, 0)

# Syncs that are timed, of one page each.
SYNCS = 15

# No device that survives a power cut acknowledges faster than this, in seconds; an NVMe with a protected cache takes 20 µs.
TOO_FAST_S = 0.000_01

# Above this, in seconds, every commit of a run that runs alone is felt.
SLOW_S = 0.02

# Bytes: below the first a day of runs may not fit; below the second the next minutes may not.
LITTLE, TINY = 2 * 2**30, 200 * 2**20

IN_MEMORY = {"tmpfs", "ramfs"}
OVER_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p"}


def checks(db: str) -> Iterator[Check]:
    """What does not depend on the journal's contents."""
    yield Check("python", Level.OK, f"{platform.python_version()} at {sys.executable}")
    yield sqlite()
    yield terminal(sys.stdout.encoding or "")
    path = path_of(db)
    if path is not None:
        folder = path.parent
        yield disk(folder)
        yield filesystem(folder)
        yield fsync(folder)


def path_of(db: str) -> Path | None:
    """The journal's file, or None when it is none."""
    scheme, _, rest = db.partition(":")
    return Path(rest.removeprefix("//").removeprefix("/") or ".").absolute() if scheme == "sqlite" else None


def sqlite() -> Check:
    import sqlite3

    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < LEAST_SQLITE:
        return Check("sqlite", Level.BAD, f"{version} is too old", f"use a Python with SQLite {'.'.join(map(str, LEAST_SQLITE))} or newer")
    return Check("sqlite", Level.OK, version)


def terminal(encoding: str) -> Check:
    if encoding.lower().replace("-", "") == "utf8":
        return Check("terminal", Level.OK, "UTF-8")
    return Check("terminal", Level.WARN, f"writes {encoding or 'nothing known'}, which has no boxes and arrows",
                 "set PYTHONIOENCODING=utf-8, or a UTF-8 locale")


def disk(folder: Path) -> Check:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("disk", Level.BAD, f"{folder}: {(error.strerror or str(error)).lower()}", "name a folder that exists: --db sqlite:///FILE")
    text = f"{free / 2**30:.1f} GiB free in {folder}"
    if free < TINY:
        return Check("disk", Level.BAD, text, "free some space: a journal that cannot grow stops all runs")
    return Check("disk", Level.WARN if free < LITTLE else Level.OK, text, "yk runs purge --older-than 30d" if free < LITTLE else "")


def filesystem(folder: Path, mounts: str = "/proc/mounts") -> Check:
    kind = kind_of(folder, mounts)
    if kind in IN_MEMORY:
        return Check("filesystem", Level.WARN, f"{kind}: it is in memory, and gone after a restart of the machine", "keep the journal on a disk")
    if kind in OVER_NETWORK:
        return Check("filesystem", Level.BAD, f"{kind}: SQLite's WAL does not work over a network", "use a local disk, or PostgreSQL")
    return Check("filesystem", Level.OK, kind or "unknown")


def kind_of(folder: Path, mounts: str) -> str:
    """The kind of file system that `folder` is on, as Linux says it; "" elsewhere."""
    try:
        lines = Path(mounts).read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    here = os.path.realpath(folder)
    best, kind = -1, ""
    for line in lines:
        point, found = line.split()[1:3]
        inside = here == point or here.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), found
    return kind


def fsync(folder: Path) -> Check:
    """Time what a commit waits for. A sync that takes no time is one that did not happen."""
    try:
        median = sync_time(folder)
    except OSError as error:
        return Check("fsync", Level.BAD, f"cannot write into {folder}: {(error.strerror or str(error)).lower()}", "make the folder writable")
    return judged(median)


def judged(median_s: float) -> Check:
    text = f"{show_duration(median_s) if median_s >= 0.001 else f'{median_s * 1e6:.0f} µs'} for a page"
    if median_s < TOO_FAST_S:
        return Check("fsync", Level.WARN, f"{text}: nothing waits for the disk, so a power cut may take acknowledged records",
                     "a kill -9 takes nothing; for power cuts use a disk that syncs (not tmpfs, eatmydata, or an unsafe VM cache)")
    if median_s > SLOW_S:
        return Check("fsync", Level.NOTE, f"{text}: slow", "run many at a time: one sync serves all that wait")
    return Check("fsync", Level.OK, text)


def sync_time(folder: Path) -> float:
    """Median seconds to make one page durable."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".yk-doctor-") as file:
        for number in range(SYNCS):
            os.pwrite(file.fileno(), b"y" * 4096, number * 4096)
            began = runtime.monotonic()
            os.fsync(file.fileno())
            times.append(runtime.monotonic() - began)
    return sorted(times)[SYNCS // 2]
