"""`yk demo history`: play the known loss, tell it as it happens, leave a picture."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec

from yaoki.examples.history.picture import draw
from yaoki.examples.history.story import Told, play


def run(*, json: bool = False, folder: Path | None = None) -> int:
    """Play, print, and draw `history.svg` into `folder` (the current one by default). 0: named, repaired and proven."""
    where = folder or Path.cwd()
    where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="yaoki-history-") as state:
        told = asyncio.run(play(Path(state), say=_silent if json else _say))
    picture = where / "history.svg"
    picture.write_text(draw(told), "utf-8")
    if json:
        print(msgspec.json.encode({**msgspec.to_builtins(told), "picture": str(picture), "held": held(told)}).decode())
    else:
        _say(summary(told, picture))
    return 0 if held(told) else 1


def held(told: Told) -> bool:
    """Was everything lost named within the bound, and is all of it in the bucket now?"""
    return len(told.after_repair) == 5 and told.named_after_s <= told.loss_bound_s and sum(each.startswith("missing") for each in told.findings) == 2


def summary(told: Told, picture: Path) -> str:
    """What to remember of it."""
    return "\n".join([
        "",
        f"nothing changed for {told.quiet_for_s:.0f} s             the auditor stayed silent",
        f"the trigger stood still           called after {told.stuck_after_s:.1f} s (promised: {told.stuck_bound_s:.0f} s)",
        f"versions 3 and 4 were lost        named after {told.named_after_s:.1f} s (promised: {told.loss_bound_s:.0f} s)",
        f"                                  repaired after {told.repaired_after_s:.1f} s, read again from the bucket",
        *(f"a danger in the settings          {line}" for line in told.lint if line != "the setting was put right"),
        f"the picture                       {picture}"])


def _say(line: str) -> None:
    print(line, flush=True)


def _silent(line: str) -> None:
    del line
