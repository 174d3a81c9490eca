"""What every sink must do: take a name once, never write over it, and tell what is at rest."""

from __future__ import annotations

import email.utils
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto import mock_aws

from yaoki.errors import AuditError, ConfigError, ContentConflictError
from yaoki.ledger.fingerprint import content_digest
from yaoki.ledger.sinks.folder import FolderSink
from yaoki.ledger.sinks.http import HttpSink
from yaoki.ledger.sinks.jetstream import JetStreamSink
from yaoki.ledger.sinks.memory import MemorySink
from yaoki.ledger.sinks.port import Sink
from yaoki.ledger.sinks.postgres import PostgresSink
from yaoki.ledger.sinks.s3 import S3Sink
from yaoki.ledger.sinks.template import Template


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="archive-of-logs")
        yield client


class Shelf:
    """A small store behind HTTP, as `HttpSink` wants it."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "PUT":
            if path in self.held and request.headers["If-None-Match"] == "*":
                return httpx.Response(412)
            self.held[path] = request.content
            return httpx.Response(201)
        if path not in self.held:
            return httpx.Response(404)
        return httpx.Response(200, headers={"ETag": f'"{content_digest(self.held[path]).hex()}"',
                                            "Last-Modified": email.utils.formatdate(1_700_000_000, usegmt=True)})


@pytest.fixture(params=["memory", "folder", "s3", "http", pytest.param("postgres", marks=pytest.mark.live),
                        pytest.param("jetstream", marks=pytest.mark.live)])
async def sink(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sink]:
    made: Sink
    if request.param == "memory":
        made = MemorySink()
    elif request.param == "folder":
        made = FolderSink(tmp_path / "archive", "logs/{key}-{version}.log")
    elif request.param == "s3":
        made = S3Sink(request.getfixturevalue("aws"), "archive-of-logs", "logs/{key}-{version}.log")
    elif request.param == "http":
        made = HttpSink(httpx.AsyncClient(transport=httpx.MockTransport(Shelf())), "http://shelf/logs/{key}/{version}")
    elif request.param == "jetstream":
        made = JetStreamSink(request.getfixturevalue("nats_url"), "HISTORY")
    else:
        made = PostgresSink(request.getfixturevalue("postgres"))
    await made.open()
    yield made
    await made.close()


async def put(sink: Sink, key: str, version: int, content: bytes) -> bool:
    return await sink.put(key, version, content, content_digest(content))


KEYS = ["A000001", "with space/and slash", "käse-1", "a.b_c=d"]


async def test_a_name_is_taken_once_and_read_back(sink: Sink) -> None:
    for key in KEYS:
        assert await put(sink, key, 1, key.encode()) is True
        assert await put(sink, key, 1, key.encode()) is False
    names = [(key, 1) for key in KEYS]
    found = await sink.read([*names, ("A000001", 2)])
    assert sorted((each.key, each.version) for each in found) == sorted(names)
    assert {each.digest for each in found} == {content_digest(key.encode()) for key in KEYS}
    assert all(each.at > 1_600_000_000 for each in found)


async def test_another_content_is_refused_and_nothing_is_written_over(sink: Sink) -> None:
    await put(sink, "A000001", 3, b"first")
    with pytest.raises(ContentConflictError, match="another content"):
        await put(sink, "A000001", 3, b"second")
    (found,) = await sink.read([("A000001", 3)])
    assert found.digest == content_digest(b"first")


async def test_a_listing_has_everything_in_batches(sink: Sink) -> None:
    if isinstance(sink, HttpSink):
        with pytest.raises(AuditError, match="no listing"):
            async for _ in sink.listing():
                pass
        return
    for number in range(12):
        await put(sink, f"k{number % 3}", number, b"%d" % number)
    found = [each async for batch in sink.listing() for each in batch]
    assert sorted((each.key, each.version) for each in found) == sorted((f"k{n % 3}", n) for n in range(12))
    assert all(each.digest == content_digest(b"%d" % each.version) for each in found)


async def test_what_the_template_does_not_explain_is_foreign_and_counted(aws: Any, tmp_path: Path) -> None:
    names = ["logs/readme.txt", "logs/A-007.log", "logs/-.log", "logs/A-1.log.tmp"]
    for name in names:
        aws.put_object(Bucket="archive-of-logs", Key=name, Body=b"x")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for sink in (S3Sink(aws, "archive-of-logs", "logs/{key}-{version}.log"), FolderSink(tmp_path, "logs/{key}-{version}.log")):
        assert [each async for batch in sink.listing() for each in batch] == []
        assert sink.foreign.count == 4
        assert sorted(sink.foreign.examples) == sorted(names)


async def test_a_half_written_file_is_never_seen(tmp_path: Path) -> None:
    (tmp_path / ".yaoki-123").write_bytes(b"half")
    sink = FolderSink(tmp_path)
    assert [batch async for batch in sink.listing()] == []
    assert sink.foreign.count == 0


async def test_a_folder_is_safe_before_what_is_in_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in folders of its own, and one whose writer died before it had synced the name."""
    synced: list[Path] = []
    sink = FolderSink(tmp_path / "archive", "{key}/v/{version}.log")
    monkeypatch.setattr(sink, "_sync_folder", synced.append)
    assert await sink.put("a", 1, b"1", content_digest(b"1"))
    assert {tmp_path, tmp_path / "archive", tmp_path / "archive/a", tmp_path / "archive/a/v"} <= set(synced)
    synced.clear()
    assert not await sink.put("a", 1, b"1", content_digest(b"1"))
    assert synced == [tmp_path / "archive/a/v"]


async def test_an_etag_that_is_no_md5_says_nothing_of_the_content() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"ETag": '"' + "z" * 32 + '"'})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        (record,) = await HttpSink(client, "https://store.example/{key}/{version}").read([("a", 1)])
    assert record.digest == b""


async def test_a_bucket_that_is_not_there_is_a_clear_error(aws: Any) -> None:
    with pytest.raises(AuditError, match="there is no bucket nowhere"):
        await S3Sink(aws, "nowhere", "{key}-{version}").open()


@pytest.mark.parametrize("text", ["logs/{key}.log", "{version}", "{key}-{version}-{version}", "{key}-{version}{x}", ""])
def test_a_template_that_cannot_tell_versions_apart_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="each once"):
        Template(text)


def test_names_come_back_as_they_were_written() -> None:
    for text in ("logs/{key}-{version}.log", "{version:06d}/{key}", "{key}.{version}", "{hashid}-{_version}.log"):
        template = Template(text, key="hashid", version="_version")
        for name in (("A000001", 0), ("A-1", 12), ("a/b.c", 123456)):
            assert template.parse(template.name(*name)) == name
    assert Template("{version:06d}/{key}").parse("12/a") is None
