"""classify: errors as the real libraries raise them, and every status there is."""

from __future__ import annotations

import errno
import socket
import sqlite3
import ssl
from types import SimpleNamespace
from typing import Any

import asyncpg
import botocore.exceptions
import grpc
import httpx
import psycopg
import pytest
import redis.exceptions
import requests
import sqlalchemy.exc
from hypothesis import given
from hypothesis import strategies as st

from yaoki import errors
from yaoki.policies import Failure, classify, nothing_happened
from yaoki.policies.classify import Classifier, attempts_made, mark_attempts

REQUEST = httpx.Request("POST", "http://x/")


def answer(status: int, **headers: str) -> httpx.HTTPStatusError:
    response = httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()}, request=REQUEST)
    return httpx.HTTPStatusError("", request=REQUEST, response=response)


def aws(code: str, status: int, **headers: str) -> Exception:
    return botocore.exceptions.ClientError(
        {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}}, "PutItem")  # type: ignore[typeddict-item]


class RpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, **trailing: str) -> None:
        self._code, self._trailing = code, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def trailing_metadata(self) -> Any:
        return tuple((name.replace("_", "-"), value) for name, value in self._trailing.items())


def pg(state: str) -> Exception:
    return asyncpg.PostgresError.new({"C": state, "M": "x", "S": "ERROR"})


def sqlite_error(make: str) -> Exception:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("create table t (k primary key, v not null)")
        connection.execute("insert into t values (1, 1)")
        connection.execute(make)
    except sqlite3.Error as error:
        return error
    finally:
        connection.close()
    raise AssertionError(make)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class Mine(ConnectionResetError):
    pass


# (error, kind, happened): what the protocol's own documents say
TABLE: list[tuple[Exception, str, bool | None]] = [
    (errors.BreakerOpenError("x"), "safe", False), (errors.BulkheadFullError("x"), "safe", False),
    (errors.AttemptTimeoutError("x"), "ambiguous", None), (errors.DeclinedError("x"), "permanent", False),
    (errors.SuspendedError("x"), "permanent", False), (errors.InputError("x"), "permanent", False),
    (caused(errors.ExhaustedError("x"), ConnectionRefusedError()), "safe", False),
    (ConnectionRefusedError(), "safe", False), (socket.gaierror(-2, "x"), "safe", False), (OSError(errno.EHOSTUNREACH, "x"), "safe", False),
    (ConnectionResetError(), "ambiguous", None), (BrokenPipeError(), "ambiguous", None), (TimeoutError(), "ambiguous", None),
    (Mine(), "ambiguous", None), (ssl.SSLCertVerificationError(), "permanent", False), (FileNotFoundError(errno.ENOENT, "x"), "permanent", None),
    (ValueError(), "permanent", None), (KeyError(), "permanent", None),
    (httpx.ConnectError("x"), "safe", False), (httpx.ConnectTimeout("x"), "safe", False), (httpx.PoolTimeout("x"), "safe", False),
    (caused(httpx.ConnectError("x"), ssl.SSLCertVerificationError()), "permanent", False),
    (httpx.ReadTimeout("x"), "ambiguous", None), (httpx.ReadError("x"), "ambiguous", None), (httpx.RemoteProtocolError("x"), "ambiguous", None),
    (httpx.UnsupportedProtocol("x"), "permanent", False), (httpx.TooManyRedirects("x"), "permanent", None),
    (answer(404), "permanent", False), (answer(409), "permanent", None), (answer(422), "permanent", False), (answer(408), "ambiguous", None),
    (answer(425), "safe", False), (answer(429), "throttled", False), (answer(500), "ambiguous", None), (answer(501), "permanent", False),
    (answer(503), "ambiguous", None), (answer(503, retry_after="3"), "throttled", None), (answer(504), "ambiguous", None),
    (answer(413), "permanent", False), (answer(413, retry_after="3"), "throttled", False), (answer(522), "ambiguous", None),
    (answer(429, x_should_retry="false"), "permanent", False),
    (requests.exceptions.ConnectTimeout(), "safe", False), (requests.exceptions.ReadTimeout(), "ambiguous", None),
    (requests.exceptions.InvalidURL(), "permanent", False),
    (aws("ThrottlingException", 400), "throttled", False), (aws("ConditionalCheckFailedException", 400), "permanent", False),
    (aws("InternalError", 500), "ambiguous", None), (aws("NotImplemented", 501), "permanent", False), (aws("RequestTimeout", 400), "ambiguous", None),
    (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), "safe", False),
    (botocore.exceptions.ReadTimeoutError(endpoint_url="x"), "ambiguous", None), (botocore.exceptions.NoCredentialsError(), "permanent", False),
    (RpcError(grpc.StatusCode.UNAVAILABLE), "ambiguous", None), (RpcError(grpc.StatusCode.INVALID_ARGUMENT), "permanent", False),
    (RpcError(grpc.StatusCode.DEADLINE_EXCEEDED), "permanent", None), (RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED), "permanent", False),
    (RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc_retry_pushback_ms="250"), "throttled", None),
    (RpcError(grpc.StatusCode.ALREADY_EXISTS), "permanent", None),
    (pg("40001"), "safe", False), (pg("40P01"), "safe", False), (pg("08006"), "ambiguous", None), (pg("08007"), "ambiguous", None),
    (pg("40003"), "ambiguous", None), (pg("53100"), "throttled", False), (pg("23505"), "permanent", None), (pg("23503"), "permanent", False),
    (pg("42601"), "permanent", False), (pg("57014"), "permanent", None), (pg("XX000"), "permanent", None),
    (psycopg.errors.SerializationFailure(), "safe", False), (psycopg.OperationalError("connection refused? Connection refused"), "safe", False),
    (psycopg.OperationalError("server closed the connection unexpectedly"), "ambiguous", None),
    (psycopg.errors.ConnectionTimeout("connection timeout expired"), "safe", False),
    (psycopg.OperationalError("failed to resolve host 'nowhere': [Errno -2] Name or service not known"), "safe", False),
    (psycopg.OperationalError('connection failed: connection to server at "10.0.0.1", port 5432 failed: FATAL:  sorry, too many clients'
                              ' already'), "safe", False),
    (psycopg.OperationalError('connection failed: connection to server at "10.0.0.1", port 5432 failed: FATAL:  password authentication'
                              ' failed for user "x"'), "permanent", False),
    (psycopg.OperationalError('connection failed: connection to server at "10.0.0.1", port 5432 failed: FATAL:  database "x" does not'
                              ' exist'), "permanent", False),
    (sqlalchemy.exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached"), "safe", False),
    (sqlalchemy.exc.OperationalError("select", {}, psycopg.errors.DeadlockDetected()), "safe", False),
    (sqlite_error("insert into t values (1, 2)"), "permanent", None), (sqlite_error("insert into t values (2, null)"), "permanent", False),
    (redis.exceptions.BusyLoadingError(), "safe", False), (redis.exceptions.TimeoutError(), "ambiguous", None),
    (redis.exceptions.ConnectionError("Error 111 connecting to localhost:1. Connection refused."), "safe", False),
    (redis.exceptions.TimeoutError("Timeout connecting to server"), "safe", False),
    (redis.exceptions.ConnectionError("No connection available."), "safe", False),
    (redis.exceptions.ConnectionError("Connection closed by server."), "ambiguous", None), (redis.exceptions.ResponseError(), "permanent", False),
    (redis.exceptions.OutOfMemoryError(), "throttled", False),
]


@pytest.mark.parametrize(("error", "kind", "happened"), TABLE, ids=lambda each: repr(each)[:60])
def test_an_error_means_what_its_protocol_says(error: Exception, kind: str, happened: bool | None) -> None:
    failure = classify(error)
    assert (failure.kind, failure.happened) == (kind, happened)
    assert nothing_happened(error) is (happened is False)


@given(st.integers(100, 999), st.sampled_from(["", "0", "1.5", "-3", "nan", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 400]))
def test_every_status_has_an_answer_and_every_retry_after_a_sane_one(status: int, text: str) -> None:
    failure = classify.http(status, {"retry-after": text} if text else {})
    assert failure.kind in ("safe", "ambiguous", "throttled", "permanent")
    assert failure.retry_after_s is None or 0 <= failure.retry_after_s <= 6 * 3600
    if 500 <= status < 600 and status not in (501, 505, 506, 510, 511):
        assert failure.happened is None


def test_both_forms_of_retry_after_are_read() -> None:
    from yaoki.policies.protocols import retry_after_s

    assert retry_after_s({"retry-after": "120"}, unix_now=0) == 120
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, unix_now=1445412470) == 10
    assert classify(aws("Throttling", 400, **{"retry-after": "7"})).retry_after_s == 7
    assert classify(RpcError(grpc.StatusCode.UNAVAILABLE, grpc_retry_pushback_ms="250")).retry_after_s == 0.25
    assert classify(RpcError(grpc.StatusCode.UNAVAILABLE, grpc_retry_pushback_ms="-1")).retry_after_s == float("inf")


def test_what_may_be_repeated_follows_from_the_kind_and_the_mark() -> None:
    assert classify(ConnectionRefusedError()).worth_a_retry()
    assert not classify(ConnectionResetError()).worth_a_retry()
    assert classify(ConnectionResetError()).worth_a_retry(idempotent=True)
    assert not classify(ValueError()).worth_a_retry(idempotent=True)


def test_what_one_registers_goes_before_the_tables_and_for_subclasses() -> None:
    mine = Classifier()
    mine.register(ConnectionError, Failure("permanent", happened=False))
    mine.register(ValueError, lambda error: Failure("safe", happened=False) if error.args else None)
    assert mine(Mine()).kind == "permanent"
    assert mine(ValueError(1)).kind == "safe"
    assert mine(ValueError()).kind == "permanent"


def test_an_error_with_odd_attributes_never_breaks_the_classifier() -> None:
    class OddError(httpx.HTTPError):
        @property
        def response(self) -> Any:
            raise RuntimeError

        status = SimpleNamespace()

    assert classify(OddError("x")).kind == "permanent"


def test_an_earlier_attempt_in_doubt_outweighs_a_later_certain_no() -> None:
    error = ConnectionRefusedError()
    assert nothing_happened(error)
    mark_attempts(error, 2, in_doubt=True)
    assert not nothing_happened(error)
    assert attempts_made(error) == 2
