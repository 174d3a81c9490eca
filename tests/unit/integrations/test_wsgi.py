"""WSGI middleware in threads: deadlines come in, overload is shed, places come back when responses are closed."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from virtual_time import Clock
from yaoki import runtime
from yaoki.integrations import wsgi
from yaoki.integrations.wsgi import Deadlines, LoadShedding
from yaoki.policies import remaining


def ask(app, path="/", **headers):
    """One request. Returns (status, headers, body)."""
    answer = []
    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET", **{f"HTTP_{name.upper()}": str(value) for name, value in headers.items()}}
    body = app(environ, lambda status, found: answer.extend([int(status.split()[0]), dict(found)]))
    try:
        return (*answer, b"".join(body))
    finally:
        if hasattr(body, "close"):
            body.close()


class Server:
    """Holds every request until it is let go."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.order = []
        self.left = []

    def __call__(self, environ, start_response):
        self.order.append(environ["PATH_INFO"])
        self.left.append(remaining())
        self.entered.release()
        assert self.gate.wait(100)
        start_response("200 OK", [])
        return [b"ok"]


def test_deadlines_come_in_and_expired_work_is_refused():
    server = Server()
    server.gate.set()
    with runtime.use(Clock()):
        assert ask(Deadlines(server), x_yaoki_timeout_ms=1500)[0] == 200
        assert server.left == [pytest.approx(1.5, abs=0.01)]
        status, headers, body = ask(Deadlines(server), x_yaoki_timeout_ms=1)
    assert (status, headers["content-type"], json.loads(body)["code"]) == (504, "application/problem+json", "YK-1103")
    assert len(server.order) == 1
    ask(Deadlines(server))
    assert server.left[1] == float("inf")


def test_beyond_the_limit_requests_wait_and_beyond_the_queue_they_are_refused():
    server = Server()
    app = LoadShedding(server, limit=1, queue=1, max_wait=600, target=600)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, app, "/first")
        assert server.entered.acquire(timeout=100)
        second = pool.submit(ask, app, "/second")
        while app.gate.shedder.waiting < 1:
            threading.Event().wait(0.001)
        status, headers, body = ask(app, "/third")
        assert (status, headers["retry-after"], json.loads(body)["code"]) == (503, "1", "YK-1102")
        assert ask(app, "/urgent", priority="u=9")[0] == 503
        urgent = pool.submit(ask, app, "/urgent", priority="u=0")  # takes the place of the second in the queue
        assert second.result(100)[0] == 503
        server.gate.set()
        assert (first.result(100)[0], urgent.result(100)[0]) == (200, 200)
    assert server.order == ["/first", "/urgent"]


def test_nobody_waits_longer_than_allowed():
    server = Server()
    app = LoadShedding(server, limit=1, queue=5, max_wait=0.02, target=0.02)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, app)
        assert server.entered.acquire(timeout=100)
        assert ask(app)[0] == 503
        server.gate.set()
        assert first.result(100)[0] == 200


def test_the_place_is_held_until_the_response_is_closed():
    closed = []

    class Body:
        def __iter__(self):
            return iter([b"a", b"b"])

        def close(self):
            closed.append(1)

    def app(environ, start_response):
        start_response("200 OK", [])
        return Body()

    guarded = LoadShedding(app, limit=1, queue=0)
    body = guarded({"PATH_INFO": "/"}, lambda *_: None)
    assert ask(guarded)[0] == 503
    assert b"".join(body) == b"ab"
    assert ask(guarded)[0] == 503
    body.close()
    body.close()
    assert closed == [1, 1]
    assert ask(guarded)[0] == 200
    assert guarded.gate.shedder.running == 0


def test_an_application_that_fails_gives_its_place_back():
    def app(environ, start_response):
        raise ValueError("a bug")

    guarded = LoadShedding(app, limit=1, queue=0)
    for _ in range(3):
        with pytest.raises(ValueError, match="bug"):
            ask(guarded)


def test_health_checks_are_let_through():
    server = Server()
    app = LoadShedding(server, limit=1, queue=0, exempt=["/health"])
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, app)
        assert server.entered.acquire(timeout=100)
        health = pool.submit(ask, app, "/health")
        assert server.entered.acquire(timeout=100)
        server.gate.set()
        assert first.result(100)[0] == health.result(100)[0] == 200


def test_many_threads_lose_no_place():
    app = LoadShedding(lambda environ, start: start("200 OK", []) or [b"x"], limit=3, queue=50, max_wait=600, target=600)
    with ThreadPoolExecutor(8) as pool:
        statuses = [each[0] for each in pool.map(lambda _: ask(app), range(2000))]
    assert set(statuses) == {200}
    assert (app.gate.shedder.running, app.gate.shedder.waiting) == (0, 0)


def test_a_thread_that_is_interrupted_while_it_waits_leaves_no_place_taken(monkeypatch):
    """A server's worker timeout, or gevent's, is raised in the middle of the wait."""
    server = Server()
    app = LoadShedding(server, limit=1, queue=5, max_wait=100)

    class WorkerTimeoutError(BaseException):
        pass

    class Impatient(wsgi._Ticket):
        def __init__(self):
            super().__init__()
            self.come.wait = self.interrupted

        @staticmethod
        def interrupted(timeout=None):
            raise WorkerTimeoutError

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, app)
        assert server.entered.acquire(timeout=100)
        with monkeypatch.context() as patched, pytest.raises(WorkerTimeoutError):
            patched.setattr(wsgi, "_Ticket", Impatient)
            ask(app)
        assert app.gate.shedder.waiting == 0
        server.gate.set()
        assert first.result(100)[0] == 200
    assert app.gate.shedder.running == 0
    with monkeypatch.context() as patched, pytest.raises(WorkerTimeoutError):
        patched.setattr(wsgi, "_Ticket", Impatient)
        ask(app)  # its turn has come at once, and it is interrupted before it notices
    assert app.gate.shedder.running == 0
    assert ask(app)[0] == 200
