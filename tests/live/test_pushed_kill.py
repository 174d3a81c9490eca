"""Pushed data on disk is whole whenever its process is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from random import Random

import pytest

pytestmark = pytest.mark.live

WRITER = textwrap.dedent("""
    import sys
    from yaoki import Pushed

    copy = Pushed("prices", dict[str, list[int]], poll=dict, path=sys.argv[1])
    number = 0
    while True:
        number += 1
        copy.put({"version": [number] * 20_000})
        print(number, flush=True)
""")


def test_kill_9_at_random_instants_leaves_a_whole_copy_no_older_than_the_last_one_finished(tmp_path):
    path, rng, seen = tmp_path / "prices.json", Random(11), []
    for life in range(40):
        if life >= 8 and max(seen) > 1:
            break
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "1\n"
        time.sleep(rng.uniform(0.0, 0.08) * (1 + life))  # longer and longer, until some are killed among later writes
        os.kill(writer.pid, signal.SIGKILL)
        finished = [1, *(int(line) for line in writer.stdout.read().split("\n") if line)]
        writer.stdout.close()
        writer.wait(60)
        version = json.loads(path.read_bytes())["data"]["version"]
        assert len(version) == 20_000
        assert len(set(version)) == 1
        assert version[0] >= finished[-1]  # what was finished was on disk
        seen.append(finished[-1])
    assert max(seen) > 1
