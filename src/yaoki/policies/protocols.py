"""The tables behind `classify`: what the errors of each protocol mean. Data first, then who reads it.

Libraries are recognised by the name of the top module and of the class, so that none of them is imported.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from math import inf
from typing import Any

from yaoki import runtime
from yaoki.policies.classify import (
    AMBIGUOUS,
    MISTAKE,
    PERMANENT,
    REFUSED,
    SAFE,
    THROTTLED,
    Failure,
    Reader,
    classify,
    of_yaoki,
)

LONGEST_RETRY_AFTER_S = 6 * 3600.0  # a longer one is taken for this: nobody waits for it in memory anyway (urllib3 has the same cap)

# ── HTTP: RFC 9110 section 15, RFC 6585 (429), RFC 8470 (425); 52x as Cloudflare documents them ──────────────────────

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110, section 9.2.2

STATUS: dict[int, Failure] = {
    408: AMBIGUOUS,                               # the server gave up waiting, perhaps for the end of a request it acts on
    409: PERMANENT._replace(healthy=True),        # the same key in progress, among others: the effect may be on its way
    421: SAFE, 425: SAFE,                         # not processed, says the RFC
    429: THROTTLED,
    499: AMBIGUOUS,                               # nginx: the client was taken for gone
    501: MISTAKE, 505: MISTAKE, 506: MISTAKE, 510: MISTAKE, 511: MISTAKE,
}

# ── gRPC: AIP-194 and gRFC A6: of all codes only UNAVAILABLE is retried for certain ──────────────────────────────────

GRPC: dict[str, Failure] = {
    "UNAVAILABLE": AMBIGUOUS,
    # Never retried by the call itself, and nobody knows what became of it:
    "DEADLINE_EXCEEDED": PERMANENT, "CANCELLED": PERMANENT, "INTERNAL": PERMANENT, "UNKNOWN": PERMANENT, "DATA_LOSS": PERMANENT,
    # Repeat the transaction around it, not the call:
    "ABORTED": PERMANENT._replace(healthy=True),
    "ALREADY_EXISTS": PERMANENT._replace(healthy=True),  # perhaps made by an earlier attempt of this very call
    **dict.fromkeys(("INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "FAILED_PRECONDITION", "OUT_OF_RANGE",
                     "UNIMPLEMENTED", "UNAUTHENTICATED"), REFUSED),
}

# ── AWS: the lists of botocore's standard mode (botocore/retries/standard.py) ────────────────────────────────────────

AWS_THROTTLING = frozenset({
    "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottledException", "TooManyRequestsException",
    "ProvisionedThroughputExceededException", "TransactionInProgressException", "RequestLimitExceeded",
    "BandwidthLimitExceeded", "LimitExceededException", "RequestThrottled", "SlowDown", "PriorRequestNotComplete",
    "EC2ThrottledException",
})
AWS_TRANSIENT = frozenset({"RequestTimeout", "RequestTimeoutException"})
AWS_TRANSIENT_STATUS = (500, 502, 503, 504)

# ── SQL: SQLSTATE classes (ISO 9075; PostgreSQL's appendix A). The unit of repetition is the whole transaction ───────

SQLSTATE: dict[str, Failure] = {
    **dict.fromkeys(("40001", "40P01",            # serialization failure, deadlock: rolled back
                     "55P03",                     # lock not available
                     "53300", "57P03", "08001", "08004",  # no connection was had
                     "25006"), SAFE),             # read-only: a failed-over primary; nothing was written
    **dict.fromkeys(("08000", "08003", "08006", "08007", "40003", "57P01", "57P02", "57P05", "25P03"), AMBIGUOUS),
    "57014": PERMANENT,                           # cancelled on request: somebody's deadline
    "23505": PERMANENT._replace(healthy=True),    # unique violation: on an idempotency key it means "already done"
}
SQLSTATE_CLASS: dict[str, Failure] = {"53": THROTTLED, "22": REFUSED, "23": REFUSED, "42": REFUSED, "08": AMBIGUOUS, "40": SAFE}

# SQLite's primary result codes (sqlite.org/rescode.html).
SQLITE: dict[int, Failure] = {
    5: SAFE, 6: SAFE,                             # BUSY, LOCKED
    8: MISTAKE, 11: MISTAKE, 13: MISTAKE, 14: MISTAKE, 26: MISTAKE,  # READONLY, CORRUPT, FULL, CANTOPEN, NOTADB
    10: AMBIGUOUS,                                # IOERR
    19: REFUSED,                                  # CONSTRAINT
}
SQLITE_UNIQUE = (2067, 1555)  # CONSTRAINT_UNIQUE, CONSTRAINT_PRIMARYKEY

# ── libraries: class name → meaning ──────────────────────────────────────────────────────────────────────────────────

NAMES: dict[str, dict[str, Failure]] = {
    "httpx": {
        **dict.fromkeys(("ConnectError", "ConnectTimeout", "PoolTimeout"), SAFE),
        **dict.fromkeys(("UnsupportedProtocol", "InvalidURL", "LocalProtocolError", "CookieConflict"), MISTAKE),
        **dict.fromkeys(("ReadTimeout", "WriteTimeout", "ReadError", "WriteError", "CloseError", "RemoteProtocolError",
                         "ProxyError", "TimeoutException", "NetworkError", "TransportError"), AMBIGUOUS),
        **dict.fromkeys(("TooManyRedirects", "DecodingError"), PERMANENT),
    },
    "requests": {
        **dict.fromkeys(("ConnectTimeout", ), SAFE),
        **dict.fromkeys(("SSLError", "InvalidURL", "MissingSchema", "InvalidSchema", "InvalidHeader", "InvalidProxyURL"), MISTAKE),
        **dict.fromkeys(("ReadTimeout", "Timeout", "ConnectionError", "ChunkedEncodingError", "ProxyError"), AMBIGUOUS),
        **dict.fromkeys(("TooManyRedirects", "ContentDecodingError"), PERMANENT),
    },
    "urllib3": {
        **dict.fromkeys(("NewConnectionError", "ConnectTimeoutError", "NameResolutionError"), SAFE),
        **dict.fromkeys(("SSLError", "LocationValueError", "LocationParseError"), MISTAKE),
        **dict.fromkeys(("ReadTimeoutError", "ProtocolError", "ProxyError", "TimeoutError", "IncompleteRead"), AMBIGUOUS),
    },
    "aiohttp": {
        **dict.fromkeys(("ClientConnectorError", "ClientConnectorDNSError", "ConnectionTimeoutError",
                         "ClientProxyConnectionError"), SAFE),
        **dict.fromkeys(("ClientConnectorCertificateError", "ClientConnectorSSLError", "InvalidURL"), MISTAKE),
        **dict.fromkeys(("ServerDisconnectedError", "ServerTimeoutError", "SocketTimeoutError", "ClientOSError",
                         "ClientPayloadError", "ClientConnectionError"), AMBIGUOUS),
        "TooManyRedirects": PERMANENT,
    },
    "botocore": {
        **dict.fromkeys(("EndpointConnectionError", "ConnectTimeoutError"), SAFE),
        **dict.fromkeys(("ParamValidationError", "NoCredentialsError", "PartialCredentialsError", "NoRegionError", "SSLError",
                         "UnknownServiceError"), MISTAKE),
        **dict.fromkeys(("ReadTimeoutError", "ConnectionClosedError", "ConnectionError", "HTTPClientError",
                         "ResponseStreamingError", "IncompleteReadError"), AMBIGUOUS),
    },
    "redis": {
        **dict.fromkeys(("BusyLoadingError", "MaxConnectionsError", "TryAgainError", "ClusterDownError", "MasterDownError",
                         "ReadOnlyError"), SAFE),       # ReadOnlyError: a failed-over primary
        **dict.fromkeys(("TimeoutError", "ConnectionError"), AMBIGUOUS),
        "OutOfMemoryError": THROTTLED,
        **dict.fromkeys(("WatchError", "ExecAbortError"), REFUSED),   # redo the transaction around it
        **dict.fromkeys(("MovedError", "AskError", "ResponseError", "NoScriptError", "AuthenticationError",
                         "AuthorizationError", "NoPermissionError", "DataError"), REFUSED),
    },
    "asyncpg": {
        **dict.fromkeys(("CannotConnectNowError", "TooManyConnectionsError"), SAFE),
        **dict.fromkeys(("ConnectionDoesNotExistError", "PostgresConnectionError", "InternalClientError"), AMBIGUOUS),
        "InterfaceError": PERMANENT,
    },
    "psycopg": {"PoolTimeout": SAFE, "ConnectionTimeout": SAFE, "OperationalError": AMBIGUOUS},
    "psycopg_pool": dict.fromkeys(("PoolTimeout", "TooManyRequests", "PoolClosed"), SAFE),
    "psycopg2": {"OperationalError": AMBIGUOUS},
    "sqlalchemy": {"TimeoutError": SAFE},   # of its pool
    "asyncio": {"IncompleteReadError": AMBIGUOUS},
}
for _twin, _original in (("httpx2", "httpx"), ("httpcore", "httpx"), ("aiobotocore", "botocore")):
    NAMES[_twin] = NAMES[_original]

ERRNO: dict[int, Failure] = {
    **dict.fromkeys((errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN,
                     errno.EADDRNOTAVAIL), SAFE),
    **dict.fromkeys((errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ETIMEDOUT, errno.ESHUTDOWN), AMBIGUOUS),
}


# ── readers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def http(status: int, headers: Mapping[str, str], *, unix_now: float) -> Failure:
    """What an HTTP answer means. `unix_now` serves dates in Retry-After."""
    wait_s = retry_after_s(headers, unix_now=unix_now)
    if headers.get("x-should-retry") == "false":  # OpenAI's and Anthropic's APIs, and others after them
        return STATUS.get(status, PERMANENT)._replace(kind="permanent", retry_after_s=inf)
    if status in STATUS:
        return STATUS[status]._replace(retry_after_s=wait_s)
    if 400 <= status < 500:
        return THROTTLED._replace(retry_after_s=wait_s) if status == 413 and wait_s is not None else REFUSED
    if status == 503 and wait_s is not None:
        # Turned away for load, so it may be repeated; but a proxy says 503 too, so for a saga it stays in doubt.
        return THROTTLED._replace(happened=None, retry_after_s=wait_s)
    return AMBIGUOUS._replace(retry_after_s=wait_s) if status >= 500 else PERMANENT


def retry_after_s(headers: Mapping[str, str], *, unix_now: float) -> float | None:
    """Retry-After as seconds from now, both forms of RFC 9110 section 10.2.3; None if absent or unreadable."""
    text = (headers.get("retry-after") or headers.get("Retry-After") or "").strip()
    if not text:
        return None
    try:
        wait_s = float(text)
    except ValueError:
        from email.utils import parsedate_to_datetime  # noqa: PLC0415

        try:
            wait_s = parsedate_to_datetime(text).timestamp() - unix_now
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(0.0, wait_s), LONGEST_RETRY_AFTER_S) if wait_s == wait_s else None  # noqa: PLR0124 - not NaN


def _by_name(error: BaseException, table: dict[str, Failure]) -> Failure | None:
    for base in type(error).__mro__:
        if base.__name__ in table and base.__module__ != "builtins":
            return table[base.__name__]
    return None


def _bad_certificate(error: BaseException) -> bool:
    """TLS refused the other side's certificate: connecting again changes nothing."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return False
        if type(seen).__name__ == "SSLCertVerificationError":
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _of_http_client(error: Any) -> Failure | None:
    """httpx, requests, urllib3 and aiohttp: an answer if there is one, else the name of what went wrong on the way."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None) or getattr(error, "status", None)
    headers = getattr(response, "headers", None) or getattr(error, "headers", None) or {}
    if isinstance(status, int) and not isinstance(status, bool) and status >= 100:
        failure = classify.http(status, headers)
        in_doubt = getattr(response, "extensions", None) or {}
        return failure._replace(happened=None) if in_doubt.get("yaoki_in_doubt") else failure
    reason = getattr(error, "reason", None)  # urllib3.MaxRetryError: what its last attempt died of
    if isinstance(reason, BaseException):
        return _of_http_client(reason)
    inner = error.args[0] if type(error).__name__ == "ConnectionError" and error.args else None
    if isinstance(inner, BaseException):     # requests.ConnectionError around urllib3's error
        found = _of_http_client(inner)
        if found is not None:
            return found
    root = type(error).__module__.partition(".")[0]
    for base in type(error).__mro__:
        if base.__module__.partition(".")[0] in NAMES:
            root = base.__module__.partition(".")[0]
            break
    found = _by_name(error, NAMES.get(root, {}))
    return MISTAKE if found is SAFE and _bad_certificate(error) else found


def _of_grpc(error: Any) -> Failure | None:
    code = error.code()
    name = getattr(code, "name", "")
    metadata = {key: value for key, value in (error.trailing_metadata() or ())}  # noqa: C416 - pairs of a foreign type
    pushback = metadata.get("grpc-retry-pushback-ms")
    if pushback is not None:
        # gRFC A6: exact delay; anything that is not a non-negative number means "do not retry".
        text = str(pushback)
        wait_s = int(text) / 1000 if text.isdigit() else inf
        return THROTTLED._replace(retry_after_s=wait_s, happened=None)
    if name == "RESOURCE_EXHAUSTED":
        return PERMANENT._replace(happened=False)  # a quota without a date: waiting a little does not help
    return GRPC.get(name)


def _of_botocore(error: Any) -> Failure | None:
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return _by_name(error, NAMES["botocore"])
    code = response.get("Error", {}).get("Code", "")
    metadata = response.get("ResponseMetadata", {})
    wait_s = retry_after_s(metadata.get("HTTPHeaders", {}), unix_now=runtime.unix_time())
    status = metadata.get("HTTPStatusCode", 400)
    if code in AWS_THROTTLING:
        return THROTTLED._replace(retry_after_s=wait_s)
    if code in AWS_TRANSIENT or status in AWS_TRANSIENT_STATUS:
        return AMBIGUOUS._replace(retry_after_s=wait_s)
    return classify.http(status, metadata.get("HTTPHeaders", {}))


def sqlstate(state: str) -> Failure | None:
    """What a five-letter SQLSTATE means."""
    return SQLSTATE.get(state) or SQLSTATE_CLASS.get(state[:2])


# libpq says in words only that there was no connection, and why.
NOT_CONNECTED = ("connection failed: ", "connection to server at ", "connection to server on ", "could not connect to server",
                 "could not translate host name", "failed to resolve host")
NEVER_CONNECTED = ("authentication failed", "does not exist", "pg_hba.conf", "permission denied")


def _unconnected(text: str) -> Failure | None:
    if any(why in text for why in NEVER_CONNECTED) and text.startswith(NOT_CONNECTED):
        return MISTAKE
    return SAFE if text.startswith(NOT_CONNECTED) or "Connection refused" in text else None


def _of_sql(error: Any) -> Failure | None:
    """asyncpg, psycopg and SQLAlchemy, which wraps either (`orig`)."""
    original = getattr(error, "orig", None)
    if isinstance(original, BaseException):
        return classify(original)
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if isinstance(state, str) and len(state) == 5:
        return sqlstate(state) or PERMANENT
    if (unconnected := _unconnected(str(error))) is not None:
        return unconnected
    root = type(error).__module__.partition(".")[0]
    return _by_name(error, NAMES.get(root, {}))


def _of_sqlite(error: Any) -> Failure | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return MISTAKE if type(error).__name__ in ("ProgrammingError", "InterfaceError", "NotSupportedError") else None
    if code in SQLITE_UNIQUE:
        return SQLSTATE["23505"]
    return SQLITE.get(code & 0xFF, REFUSED)


REDIS_NOT_CONNECTED = ("connecting to", "Connection refused", "No connection available")  # the last one: of its pool


def _of_redis(error: Any) -> Failure | None:
    if type(error).__name__ in ("ConnectionError", "TimeoutError") and any(words in str(error) for words in REDIS_NOT_CONNECTED):
        return SAFE
    return _by_name(error, NAMES["redis"])


def _of_system(error: Any) -> Failure | None:
    """Sockets and the operating system."""
    name = type(error).__name__
    if name == "SSLCertVerificationError":
        return MISTAKE
    if name == "gaierror":
        return SAFE
    if error.errno in ERRNO:
        return ERRNO[error.errno]
    if isinstance(error, ConnectionRefusedError):
        return SAFE
    return AMBIGUOUS if isinstance(error, ConnectionError | TimeoutError) or name.startswith("SSL") else None


def _of_asyncio(error: Any) -> Failure | None:
    return _by_name(error, NAMES["asyncio"])


READERS: dict[str, Reader] = {
    "yaoki": of_yaoki,
    **dict.fromkeys(("httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp"), _of_http_client),
    "grpc": _of_grpc,
    "botocore": _of_botocore, "aiobotocore": _of_botocore, "boto3": _of_botocore,
    **dict.fromkeys(("asyncpg", "psycopg", "psycopg2", "psycopg_pool", "sqlalchemy"), _of_sql),
    "sqlite3": _of_sqlite,
    "redis": _of_redis,
    "asyncio": _of_asyncio,
}


def readers(kind: type[BaseException]) -> list[Reader]:
    """The readers of this type's and its bases' libraries, most derived first."""
    found: list[Reader] = []
    for base in kind.__mro__:
        reader = READERS.get(base.__module__.partition(".")[0])
        if reader is not None and reader not in found:
            found.append(reader)
    return [*found, _of_system] if issubclass(kind, OSError) else found
