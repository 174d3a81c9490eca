"""What all benchmarks share: their switches, the machine's facts, claims with bars, and the last line of JSON."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sqlite3
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def arguments(doc: str | None, **more: Any) -> argparse.Namespace:
    """`--json` (only the last line), `--quick` (under 50 s), `--save` (keep the result under benchmarks/results)."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join((doc or "").splitlines()[1:]))
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under 50 s")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/NAME.json")
    for name, settings in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)
    return parser.parse_args()


def peers_python(name: str) -> Path:
    """Python of the environment of `requirements/bench-NAME.lock`, under `.yaoki/`; made when its lock has changed."""
    home, lock = ROOT / ".yaoki" / f"bench-{name}", ROOT / "requirements" / f"bench-{name}.lock"
    python, stamp = home / "bin" / "python", home / ".made"
    if not stamp.exists() or stamp.read_text() != lock.read_text():
        print(f"making the peers' environment {home.name}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", lock], check=True)
        stamp.write_text(lock.read_text())
    return python


def machine() -> dict[str, Any]:
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor()) if Path("/proc/cpuinfo").exists() else platform.processor()
    return {"cpu": cpu, "cores": os.cpu_count(), "load_1min": round(os.getloadavg()[0], 2), "python": platform.python_version(),
            # An interpreter that was built without profile-guided optimization takes a fifth longer.
            "python_optimized": "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""), "sqlite": sqlite3.sqlite_version, "system": platform.platform(terse=True),
            "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d")}


class Report:
    """Collects claims; prints a table for people and one JSON object as the last line."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        self.options = options
        self.claims: list[dict[str, Any]] = []

    def line(self, text: str) -> None:
        if not self.options.json:
            print(text, flush=True)

    def claim(self, name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        holds = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        bar = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}"
        self.claims.append({"name": name, "value": round(value, 4), "bar": bar, "holds": holds})
        self.line(f"{'ok  ' if holds else 'MISS'}  {name}: {value:.4g} ({bar})")

    def end(self, raw: Any) -> int:
        """Print the last line; 1 when a claim does not hold."""
        result = {"claims": self.claims, "machine": machine(), "raw": raw}
        if self.options.save:
            folder = Path(__file__).parent / "results"
            folder.mkdir(exist_ok=True)
            (folder / f"{self.name}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result))
        sys.stdout.flush()
        return 0 if all(claim["holds"] for claim in self.claims) else 1
