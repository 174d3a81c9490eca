"""A folder with one file for each version.

A file is written aside, synced, and linked to its name: the name is there with all of its content or not at all, and a
link fails where the name is taken, so two writers cannot write over each other.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from yaoki import runtime
from yaoki.errors import AuditError, ContentConflictError
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.records import Batch, Naming, Record
from yaoki.ledger.sinks.port import Foreign
from yaoki.ledger.sinks.template import Template

PAGE = 1000
HALF_WRITTEN = ".yaoki-"


class FolderSink:
    """Files under `root`, named by `template`, which may contain folders.

    Args:
        digests: read every file when listing, to compare contents; else names only.
    """

    def __init__(self, root: str | Path, template: str = "{key}-{version}.log", *, digests: bool = True) -> None:
        self.root = Path(root)
        self.template = Template(template, quoted=True)
        self.name = f"folder:{self.root}"
        self.knows_digests = digests
        self.foreign = Foreign()
        self._made: set[Path] = set()

    async def open(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise AuditError(f"{self.root} is not a folder", do="name a folder, or one not there yet")

    async def close(self) -> None:
        """Nothing is kept open."""

    async def put(self, key: str, version: int, content: bytes, digest: bytes) -> bool:
        return await runtime.run_blocking(self._put, key, version, content, digest)

    def _put(self, key: str, version: int, content: bytes, digest: bytes) -> bool:
        path = self.root / self.template.name(key, version)
        self._make_folder(path.parent)
        aside = path.with_name(f"{HALF_WRITTEN}{runtime.new_id()}")
        try:
            with aside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(aside, path)
            except FileExistsError:
                if content_digest(path.read_bytes()) == digest:
                    self._sync_folder(path.parent)  # whoever wrote it may have died before that
                    return False
                raise ContentConflictError(f"{path} holds another content", name=str(path),
                                           do="compare it with the ledger's, and move the wrong one away") from None
            self._sync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)
        return True

    def _make_folder(self, folder: Path) -> None:
        """The folder and those above it, so that they survive a power cut: once for each folder in this process."""
        if folder in self._made and folder.is_dir():
            return
        folder.mkdir(parents=True, exist_ok=True)
        for above in folder.parents:
            with contextlib.suppress(PermissionError):  # it may be another's, who does not let it be read
                self._sync_folder(above)
            if above == self.root.parent:
                break
        self._made.add(folder)

    def _sync_folder(self, folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)  # the name, too, must survive a power cut
        finally:
            os.close(handle)

    async def listing(self) -> AsyncIterator[Batch]:
        self.foreign = Foreign()
        names = self._names(self.root) if self.root.is_dir() else iter(())
        while True:
            batch, more = await runtime.run_blocking(self._page, names)
            if len(batch):
                yield batch
            if not more:
                return

    def _page(self, names: Iterator[os.DirEntry[str]]) -> tuple[Batch, bool]:
        batch = Batch([], [])
        for entry in names:
            name = os.path.relpath(entry.path, self.root)
            found = self.template.parse(name)
            if found is None:
                if not entry.name.startswith(HALF_WRITTEN):
                    self.foreign.note(name)
                continue
            try:
                digest, at = content_digest(Path(entry.path).read_bytes()) if self.knows_digests else b"", entry.stat().st_mtime
            except FileNotFoundError:
                continue  # a heartbeat that has served
            batch.keys.append(found[0])
            batch.versions.append(found[1])
            batch.digests.append(digest)
            batch.times.append(at)
            if len(batch) >= PAGE:
                return batch, True
        return batch, False

    def _names(self, folder: Path | str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from self._names(entry.path)
                else:
                    yield entry

    async def read(self, names: Sequence[Naming]) -> list[Record]:
        return await runtime.run_blocking(lambda: [record for name in names for record in self._read(*name)])

    def _read(self, key: str, version: int) -> list[Record]:
        path = self.root / self.template.name(key, version)
        try:
            content = path.read_bytes() if self.knows_digests else b""
            at = path.stat().st_mtime
        except FileNotFoundError:
            return []
        return [Record(key, version, content_digest(content) if self.knows_digests else b"", at)]

    async def forget(self, names: Sequence[Naming]) -> None:
        for name in names:
            (self.root / self.template.name(*name)).unlink(missing_ok=True)
