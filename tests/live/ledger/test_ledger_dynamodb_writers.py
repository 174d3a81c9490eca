"""DynamoDB on a real server: many writers of a ledger's keys, and the command line beside somebody else's pipeline."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from yaoki.examples.history.cloud import BUCKET, CREDENTIALS, FUNCTION, REGION, TABLE, Cloud
from yaoki.ledger.dynamodb import DynamoLedger

pytestmark = [pytest.mark.live, pytest.mark.timeout(600)]


async def test_writers_of_one_key_take_turns_without_holes() -> None:
    async with Cloud() as cloud, DynamoLedger(cloud.client("dynamodb"), "points") as ledger:
        async def write(writer: int) -> list[tuple[str, int]]:
            return [(f"k{n % 2}", await ledger.append(f"k{n % 2}", [writer, n])) for n in range(4)]

        written = [each for its in await asyncio.gather(*(write(n) for n in range(5))) for each in its]
        assert len(set(written)) == len(written) == 20
        for key in ("k0", "k1"):
            found = await ledger.history(key)
            assert [each.version for each in found] == list(range(1, 11))
            assert len({tuple(each.value()) for each in found}) == 10


async def test_the_command_line_names_and_repairs_a_loss_in_somebody_elses_pipeline(tmp_path: Path) -> None:
    async with Cloud() as cloud:
        await cloud.build()
        for version in (0, 1, 2):
            await cloud.write("A000001", version, text=f"change {version}")
        async with asyncio.timeout(150):
            while len(await cloud.archive()) < 3:  # noqa: ASYNC110  it is a server that is asked
                await asyncio.sleep(0.2)
        await cloud.call("s3", "delete_object", Bucket=BUCKET, Key="logs/A000001-1.log")

        async def yk(*more: str) -> tuple[int, list[dict[str, Any]]]:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "yaoki", "audit", f"dynamodb://{TABLE}", "--key", "hashid", "--version", "_version",
                "--via", f"lambda:{FUNCTION}", "--sink", f"s3://{BUCKET}/logs/{{hashid}}-{{_version}}.log", "--slo", "500ms",
                "--endpoint", cloud.endpoint, "--region", REGION, "--json", *more, cwd=tmp_path,
                env={**os.environ, **CREDENTIALS}, stdout=asyncio.subprocess.PIPE)
            said, _ = await process.communicate()
            return process.returncode or 0, [json.loads(line) for line in said.splitlines()]

        code, (report,) = await yk()
        named = [(each["kind"], each["key"], each["version"]) for each in report["findings"] if each["version"] >= 0]
        assert (code, named) == (1, [("missing", "A000001", 1)])
        assert await cloud.archive() == ["logs/A000001-0.log", "logs/A000001-2.log"]
        code, said = await yk("--repair")
        assert (code, said[0]["repair"]["repaired"]) == (0, [["A000001", 1]])
        assert len(await cloud.archive()) == 3
        assert (await yk())[0] == 0
