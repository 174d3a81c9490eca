#!/bin/sh
# Makes the lock files again from pyproject.toml. Hashed, without addresses: safe to commit, and pip and uv both take them.
#   ./requirements/update.sh [--upgrade]
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
words=$(mktemp)
trap 'rm -f "$words"' EXIT
compile() { "$uv" pip compile "$words" --universal --generate-hashes --no-header --no-annotate --python-version 3.11 -q -o "$1" ${2:+-c "$2"} ${upgrade:-}; }
list() { .venv/bin/python - "$@" <<'PY'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
needs = project["project"]["dependencies"] + ["hatchling>=1.26", "editables>=0.5"]
if "dev" in sys.argv:
    extras = project["project"]["optional-dependencies"]
    needs += [need for name in extras if name not in ("all", "bench") for need in extras[name]]
print("\n".join(needs))
PY
}
upgrade=${1:-}
list dev > "$words"; compile requirements/dev.lock
list run > "$words"; compile requirements/run.lock requirements/dev.lock
