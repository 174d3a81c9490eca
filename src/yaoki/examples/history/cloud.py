"""A small cloud on this machine: DynamoDB with streams, Lambda and S3, by `ministack`, on loopback only.

    async with Cloud() as cloud:
        await cloud.build()
        await cloud.write("A000001", 1)
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import os
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from yaoki import runtime
from yaoki.errors import ConfigError

TABLE, BUCKET, FUNCTION = "history", "archive-of-history", "to-archive"
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
START_S = 60.0


class Cloud:
    """Table, stream, function and bucket, gone when the block ends."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="yaoki-cloud-")
        self._mapping = ""
        self.stream = ""

    async def __aenter__(self) -> Self:
        if importlib.util.find_spec("ministack") is None or importlib.util.find_spec("boto3") is None:
            self._folder.cleanup()
            raise ConfigError("this demo runs DynamoDB, Lambda and S3 on your machine, with ministack and boto3",
                              do="pip install 'yaoki[history]'")
        folder = Path(self._folder.name)
        # Loopback only: by default the server would listen on every address of this machine.
        env = {**os.environ, **CREDENTIALS, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(self.port), "TMPDIR": str(folder),
               "LAMBDA_EXECUTOR": "local", "LOG_LEVEL": "ERROR", "S3_DATA_DIR": str(folder / "s3")}
        with (folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "ministack"], env=env, cwd=folder, stdout=log,  # noqa: ASYNC220
                                             stderr=subprocess.STDOUT, start_new_session=True)
        try:
            await self._wait_until_up()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 15)
            try:
                await runtime.run_blocking(self._process.wait, 10)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, 9)
                await runtime.run_blocking(self._process.wait)
        self._folder.cleanup()

    async def _wait_until_up(self) -> None:
        assert self._process is not None
        for _ in range(int(START_S / 0.2)):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                await writer.wait_closed()
                return
            if self._process.poll() is not None:
                break
            await runtime.sleep(0.2)
        said = (Path(self._folder.name) / "server.log").read_text(errors="replace")[-500:]
        raise ConfigError(f"the local cloud did not start: {said}", do="try again; if it stays so, report it")

    def client(self, service: str) -> Any:
        """A boto3 client of this cloud."""
        import boto3  # noqa: PLC0415  an extra

        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION,
                            aws_access_key_id="test", aws_secret_access_key="test")  # noqa: S106  no secret

    async def call(self, service: str, operation: str, **arguments: Any) -> Any:
        client = self.client(service)
        try:
            return await runtime.run_blocking(getattr(client, operation), **arguments)
        finally:
            client.close()

    async def build(self) -> None:
        """Make the table, the bucket, the function and what joins them."""
        await self.call("dynamodb", "create_table", TableName=TABLE, BillingMode="PAY_PER_REQUEST",
                        KeySchema=[{"AttributeName": "hashid", "KeyType": "HASH"}],
                        AttributeDefinitions=[{"AttributeName": "hashid", "AttributeType": "S"}],
                        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"})
        description = await self.call("dynamodb", "describe_table", TableName=TABLE)
        self.stream = description["Table"]["LatestStreamArn"]
        await self.call("s3", "create_bucket", Bucket=BUCKET)
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as package:
            package.writestr("handler.py", Path(__file__).with_name("handler.py").read_text())
        await self.call("lambda", "create_function", FunctionName=FUNCTION, Runtime="python3.11", Handler="handler.handler",
                        Role="arn:aws:iam::000000000000:role/demo", Code={"ZipFile": code.getvalue()}, Timeout=30,
                        Environment={"Variables": {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint, "BUCKET": BUCKET}})
        await self.call("lambda", "invoke", FunctionName=FUNCTION, Payload=b'{"Records": []}')  # warm: a cold start is no loss
        await self.start_trigger("TRIM_HORIZON")

    async def start_trigger(self, position: str) -> None:
        """Join stream and function, beginning at `position`: TRIM_HORIZON (all it has) or LATEST (only what comes)."""
        mapping = await self.call("lambda", "create_event_source_mapping", EventSourceArn=self.stream, FunctionName=FUNCTION,
                                  StartingPosition=position, BatchSize=10)
        self._mapping = mapping["UUID"]

    async def stop_trigger(self) -> None:
        await self.call("lambda", "update_event_source_mapping", UUID=self._mapping, Enabled=False)

    async def make_trigger_anew(self, position: str) -> None:
        """What an operator does who sees nothing arrive: delete the mapping and make it again."""
        await self.call("lambda", "delete_event_source_mapping", UUID=self._mapping)
        await self.start_trigger(position)

    async def write(self, key: str, version: int, **attributes: str) -> None:
        """Change an item: its `_version` goes up with it."""
        item = {"hashid": {"S": key}, "_version": {"N": str(version)}, **{name: {"S": text} for name, text in attributes.items()}}
        await self.call("dynamodb", "put_item", TableName=TABLE, Item=item)

    async def archive(self) -> list[str]:
        """The names in the bucket, canaries left out."""
        return sorted(name for name in await self._names() if "__beat" not in name)

    async def beats(self) -> set[str]:
        """The names of the canaries in the bucket."""
        return {name for name in await self._names() if "__beat" in name}

    async def _names(self) -> list[str]:
        page = await self.call("s3", "list_objects_v2", Bucket=BUCKET)
        return [each["Key"] for each in page.get("Contents", [])]


def environment(cloud: Cloud) -> Mapping[str, str]:
    """What a program needs to find this cloud."""
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": cloud.endpoint}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
