"""Put an audit together from what a person types: a source, a sink, and what joins them.

    async with open_audit(Pipeline(source="dynamodb://history", sink="s3://archive/logs/{key}-{version}.log",
                                   key="hashid", version="_version", via="lambda:to-s3")) as watch:
        await watch.look()

    sources   dynamodb://TABLE · sqlite:///FILE, postgresql://... and dynamodb-ledger://NAME (ledgers of ours)
              postgresql://...#TABLE · sqlite:///FILE#TABLE (anybody's table, or outbox) · sqs://QUEUE · nats://HOST/STREAM
              broker+URL#TYPE (any broker of `yaoki.messages`)
    sinks     s3://BUCKET/TEMPLATE · a folder with a TEMPLATE · postgresql://...#TABLE · https://HOST/TEMPLATE · nats://HOST/STREAM
              broker+URL#TYPE
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from yaoki.errors import AuditError, ConfigError
from yaoki.ledger.ledger import Ledger
from yaoki.ledger.rules import Rules
from yaoki.ledger.sinks.port import Sink
from yaoki.ledger.sources.ledger import LedgerSource
from yaoki.ledger.sources.shadow import Shadow
from yaoki.ledger.store.sqlite import SqliteStore
from yaoki.ledger.watch import Watch

if TYPE_CHECKING:
    from yaoki.messages.brokers.port import Broker

STATE_FOLDER = Path(".yaoki")


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """What is audited.

    Attributes:
        key, version: the attributes, or columns, that name a version.
        via: what carries changes from the source to the sink: `lambda:NAME`; "" if unknown.
        state: the file in which an audit of somebody else's pipeline remembers; "" for one under `.yaoki/`.
        canary_every_s: how often heartbeats are written into the source; None: never.
        canary_item: further attributes of canaries, for functions that need them.
        scan_every_s: how often the table's newest versions are read.
        first: the first version of a key; None: 0 if the sink has any version 0, else 1.
        slot: a logical replication slot of our own, to read a PostgreSQL table's changes by; made when missing.
        endpoint, region: of AWS, where they are not the usual ones.
    """

    source: str
    sink: str
    key: str = "key"
    version: str = "version"
    via: str = ""
    rules: Rules = msgspec.field(default_factory=Rules)
    state: str = ""
    canary_every_s: float | None = None
    canary_item: Mapping[str, Any] = msgspec.field(default_factory=dict)
    scan_every_s: float = 900.0
    first: int | None = None
    slot: str = ""
    endpoint: str = ""
    region: str = ""
    list_every_s: float = 3600.0


@contextlib.asynccontextmanager
async def open_audit(pipeline: Pipeline) -> AsyncIterator[Watch]:
    """An audit of this pipeline, ready to look. Raises `AuditError` or `ConfigError` saying what is wrong with it."""
    async with contextlib.AsyncExitStack() as stack:
        sink = open_sink(pipeline)
        await sink.open()
        stack.push_async_callback(sink.close)
        scheme = pipeline.source.split("://", 1)[0]
        if scheme == "dynamodb":
            watch = await _dynamo(pipeline, sink, stack)
        elif scheme == "dynamodb-ledger":
            watch = await _dynamo_ledger(pipeline, sink, stack)
        elif scheme in {"sqlite", "postgresql", "postgres"} and "#" not in pipeline.source:
            ledger = await stack.enter_async_context(Ledger(pipeline.source))
            watch = Watch(ledger.store, LedgerSource(ledger), sink, pipeline.rules, list_every_s=pipeline.list_every_s)
        elif scheme in {"sqlite", "postgresql", "postgres", "sqs", "nats"} or scheme.startswith("broker+"):
            watch = await _feed(pipeline, sink, stack)
        else:
            raise ConfigError(f"nothing can be audited at {pipeline.source!r}",
                              do="use dynamodb://TABLE, dynamodb-ledger://NAME, postgresql://...[#TABLE], sqlite:///FILE[#TABLE], sqs://QUEUE, "
                              "nats://HOST/STREAM or broker+URL#TYPE")
        stack.push_async_callback(watch.close)
        yield watch


def aws(pipeline: Pipeline, service: str) -> Any:
    """A boto3 client with the credentials that boto3 finds for itself."""
    try:
        import boto3  # noqa: PLC0415  an extra
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("auditing AWS needs boto3", do="pip install 'yaoki[aws]'") from error
    try:
        return boto3.client(service, endpoint_url=pipeline.endpoint or None, region_name=pipeline.region or None,
                            config=Config(retries={"mode": "standard"}, connect_timeout=5, read_timeout=60,
                                          max_pool_connections=32))
    except BotoCoreError as error:
        raise AuditError(f"AWS cannot be reached as configured: {error}",
                         do="set the region and credentials (AWS_REGION, AWS_PROFILE), or use --region") from error


def open_sink(pipeline: Pipeline) -> Sink:
    """The sink that a URL or path names; not opened yet."""
    url = pipeline.sink
    if url.startswith("s3://"):
        from yaoki.ledger.sinks.s3 import S3Sink  # noqa: PLC0415
        bucket, _, template = url.removeprefix("s3://").partition("/")
        return S3Sink(aws(pipeline, "s3"), bucket, template, key=pipeline.key, version=pipeline.version)
    if url.startswith(("postgresql://", "postgres://")):
        from yaoki.ledger.sinks.postgres import PostgresSink  # noqa: PLC0415
        address, _, table = url.partition("#")
        return PostgresSink(address, table or "received")
    if url.startswith(("http://", "https://")):
        import httpx  # noqa: PLC0415

        from yaoki.ledger.sinks.http import HttpSink  # noqa: PLC0415
        return HttpSink(httpx.AsyncClient(), url)
    if url.startswith("nats://"):
        from yaoki.ledger.sinks.jetstream import JetStreamSink  # noqa: PLC0415
        address, _, stream = url.rpartition("/")
        return JetStreamSink(address, stream)
    if url.startswith("broker+"):
        from yaoki.ledger.sinks.broker import BrokerSink  # noqa: PLC0415
        from yaoki.ledger.sinks.receipts import Receipts  # noqa: PLC0415
        connect, name, kind = broker_of(url)
        return BrokerSink(connect, name, Receipts(str(state_path(name, "sink"))), kind=kind)
    if "://" in url and not url.startswith("file://"):
        raise ConfigError(f"no sink is known at {url!r}", do="use s3://BUCKET/TEMPLATE, a path with a template, "
                          "postgresql://...#TABLE, https://..., nats://HOST/STREAM or broker+URL#TYPE")
    from yaoki.ledger.sinks.folder import FolderSink  # noqa: PLC0415
    path = url.removeprefix("file://")
    root, template = split_path(path)
    return FolderSink(root, template)


def split_path(path: str) -> tuple[Path, str]:
    """A path with a template as (the folder above the first field, the rest)."""
    if "{" not in path:
        raise ConfigError(f"the path {path!r} has no template", do="for example archive/{key}-{version}.log")
    fixed = path[:path.index("{")]
    folder, _, _ = fixed.rpartition("/")
    return Path(folder or ("/" if fixed.startswith("/") else ".")), path[len(folder) + 1:] if folder else path.lstrip("/")


def state_path(name: str, what: str) -> Path:
    """Where what is remembered of a source or sink is kept, unless its owner says otherwise."""
    STATE_FOLDER.mkdir(parents=True, exist_ok=True)
    return STATE_FOLDER / f"{what}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}.db"


def broker_of(url: str) -> tuple[Callable[[], Awaitable[Broker]], str, str]:
    """(what opens it, its name without secrets, the type of its messages) of `broker+URL#TYPE`."""
    from yaoki.messages.brokers.opening import open_broker  # noqa: PLC0415

    address, _, kind = url.removeprefix("broker+").partition("#")
    if not kind:
        raise ConfigError(f"{url!r} names no type of messages", do="write it after #: broker+nats://HOST:4222#OrderPlaced")
    name = re.sub(r"//[^@/]*@", "//", url)
    return functools.partial(open_broker, address), name, kind


async def _state(pipeline: Pipeline, stack: contextlib.AsyncExitStack) -> Shadow:
    """The file in which an audit of somebody else's pipeline remembers."""
    name = re.sub(r"//[^@/]*@", "//", pipeline.source)
    path = Path(pipeline.state) if pipeline.state else state_path(name, "audit")
    path.parent.mkdir(parents=True, exist_ok=True)
    store = SqliteStore(path)
    await store.open()
    stack.push_async_callback(store.close)
    shadow = Shadow(store)
    await shadow.open()
    return shadow


async def _dynamo(pipeline: Pipeline, sink: Sink, stack: contextlib.AsyncExitStack) -> Watch:
    from yaoki.ledger.sources.aws import Clients  # noqa: PLC0415
    from yaoki.ledger.sources.dynamodb import DynamoSource  # noqa: PLC0415

    if pipeline.via and not pipeline.via.startswith("lambda:"):
        raise ConfigError(f"--via {pipeline.via!r} is not known", do="use lambda:NAME")
    shadow = await _state(pipeline, stack)
    clients = Clients(aws(pipeline, "dynamodb"), aws(pipeline, "dynamodbstreams"), aws(pipeline, "lambda"))
    source = DynamoSource(
        clients, pipeline.source.removeprefix("dynamodb://"), shadow, key=pipeline.key, version=pipeline.version,
        function=pipeline.via.removeprefix("lambda:"), first=pipeline.first if pipeline.first is not None else 1,
        canary_every_s=pipeline.canary_every_s, canary_item=pipeline.canary_item, scan_every_s=pipeline.scan_every_s)
    await source.open()
    if pipeline.first is None:
        source.first = await first_version(sink)
    return Watch(shadow.store, source, sink, pipeline.rules, lint=source.dangers, list_every_s=pipeline.list_every_s)


async def _dynamo_ledger(pipeline: Pipeline, sink: Sink, stack: contextlib.AsyncExitStack) -> Watch:
    from yaoki.ledger.dynamodb import DynamoLedger  # noqa: PLC0415
    from yaoki.ledger.sources.dynamodb_ledger import DynamoLedgerSource  # noqa: PLC0415

    name = pipeline.source.removeprefix("dynamodb-ledger://")
    ledger = await stack.enter_async_context(DynamoLedger(aws(pipeline, "dynamodb"), name))
    shadow = await _state(pipeline, stack)
    return Watch(shadow.store, DynamoLedgerSource(ledger), sink, pipeline.rules, list_every_s=pipeline.list_every_s)


async def first_version(sink: Sink) -> int:
    """0 if any of the first thousand names of a sink has version 0, else 1."""
    async for batch in sink.listing():
        return 0 if 0 in batch.versions else 1
    return 1


async def _feed(pipeline: Pipeline, sink: Sink, stack: contextlib.AsyncExitStack) -> Watch:
    from yaoki.ledger.sources.feeds import open_feed  # noqa: PLC0415

    shadow = await _state(pipeline, stack)
    source = await open_feed(pipeline, shadow, stack)
    return Watch(shadow.store, source, sink, pipeline.rules, lint=source.dangers, list_every_s=pipeline.list_every_s)
