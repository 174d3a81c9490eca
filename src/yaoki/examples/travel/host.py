"""Runs the services, each as a process of its own, and starts one again when it dies.

    python -m yaoki.examples.travel.host --dir /tmp/agency            until Ctrl-C, or until the pipe that is its input ends

Everything is imported once, here; a service is a fork, so that it is back some 20 ms after a kill -9. Each keeps its port
all along: the host holds a socket bound to it that does not listen, so that while the service is dead its callers are
refused, and nobody else can take the port. What happens is told on standard output, one JSON object a line:

    {"ready": {"hotel": "http://127.0.0.1:8101", ...}, "pids": {...}}      {"died": "hotel", "signal": 9}

No process outlives its maker: the host ends when its standard input does, a service when the host's pipe does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import uvicorn
import uvicorn.loops.asyncio
import uvicorn.protocols.http.h11_impl  # here, so that a fork does not have to

from yaoki.errors import ConfigError, YaokiError
from yaoki.examples.travel import services
from yaoki.examples.travel.faults import Faults, Switch
from yaoki.examples.travel.services import flight, front, hotel, payment, points, recommend  # noqa: F401  likewise

CALLERS_TIMEOUT_S = 0.5  # what a slow answer must exceed; the saga's services wait this long
UNHARMED = frozenset({"front"})  # what must never fail is not made to fail; what it depends on is
FAILED_START = 78  # EX_CONFIG of sysexits.h: a start that would fail again


class Host:
    """The parent of all services.

    Args:
        folder: databases, logs of faults and the switch are here.
        stores: store URL by service; what is left out is SQLite in the folder.
        port: the first of one port a service; 0: any free ones.
        seed: of the faults. Without a switch file there are none.
    """

    def __init__(self, folder: Path, *, stores: dict[str, str], port: int = 0, seed: str = "0") -> None:
        self.folder = folder
        self.seed = seed
        self.stores = {name: stores.get(name, f"sqlite:///{quote(str(folder.absolute() / name))}.db") for name in services.NAMES}
        self.sockets = {name: _reserve(port + number if port else 0) for number, name in enumerate(services.NAMES)}
        self.pids: dict[int, str] = {}
        self.starts = dict.fromkeys(services.NAMES, 0)
        # The services watch its other end: it is closed by the system however this process ends.
        self.alive, self._alive_here = os.pipe()

    @property
    def urls(self) -> dict[str, str]:
        return {name: f"http://127.0.0.1:{held.getsockname()[1]}" for name, held in self.sockets.items()}

    def start(self, name: str) -> None:
        self.starts[name] += 1
        pid = os.fork()
        if pid == 0:
            self._become(name)
        self.pids[pid] = name

    def _become(self, name: str) -> NoReturn:
        """This is the child now. It never returns into the parent's code."""
        code = 1
        try:
            os.close(self._alive_here)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            os.environ["TRAVEL_RECOMMEND"] = self.urls["recommend"]
            serve(name, self.stores[name], self.sockets[name].getsockname()[1], alive=self.alive, folder=self.folder,
                  seed=f"{self.seed}/{name}/{self.starts[name]}")
            code = 0
        except YaokiError as error:
            print(json.dumps({"failed": name, **error.to_dict()}), flush=True)
            code = FAILED_START
        finally:
            os._exit(code)

    def run(self, stop: int) -> int:
        """Serve until SIGTERM or Ctrl-C, or, if the file descriptor `stop` is a pipe, until that ends."""
        kind = os.fstat(stop).st_mode
        watched = [stop] if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) else []
        died, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        stopping: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda got, _: stopping.append(got))
        try:
            for name in services.NAMES:
                self.start(name)
            self._tell_when_ready()
            while not stopping:
                readable, _, _ = select.select([*watched, died], [], [])
                if stop in readable and not os.read(stop, 1024):
                    break
                if died in readable:
                    os.read(died, 1024)
                    self._reap()
        finally:
            self.stop()
        return 0

    def _tell_when_ready(self) -> None:
        until = time.monotonic() + 30
        for name, held in self.sockets.items():
            while not _answers(held.getsockname()):
                self._reap()
                if time.monotonic() > until:
                    raise ConfigError(f"the {name} service did not start within 30 s", do=f"look into {self.folder}")
                time.sleep(0.01)
        print(json.dumps({"ready": self.urls, "pids": {name: pid for pid, name in self.pids.items()}}), flush=True)

    def _reap(self) -> None:
        while self.pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            name = self.pids.pop(pid, None)
            if name is None:
                continue
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) == FAILED_START:
                raise ConfigError(f"the {name} service cannot start", do="see the line above; mend it and start again")
            if not os.WIFSIGNALED(status):  # nobody killed it: it would only end again
                raise ConfigError(f"the {name} service ended by itself", do="run it alone and see why")
            print(json.dumps({"died": name, "signal": os.WTERMSIG(status)}), flush=True)
            self.start(name)

    def stop(self) -> None:
        """End every service: at once, for what they answered is on the disk."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + 3
        while self.pids and time.monotonic() < until:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid:
                self.pids.pop(pid, None)
            else:
                time.sleep(0.01)
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.pids.clear()
        for held in self.sockets.values():
            held.close()


def serve(name: str, store_url: str, port: int, *, alive: int | None = None, folder: Path | None = None, seed: str = "0") -> None:
    """Serve one service in this process, until it is told to end or its parent's end of `alive` is closed."""
    app: Any = services.make(name, store_url)
    if folder is not None and name not in UNHARMED and (folder / "faults.switch").exists():
        app = Faults(app, store=getattr(app.state, "store", None), switch=Switch(folder / "faults.switch"),
                     log=folder / f"{name}.faults", seed=seed, timeout_s=CALLERS_TIMEOUT_S)
    # The protocol is named, because asyncio turns Nagle's delay off only where it is: without it each answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        raise ConfigError(f"port {port} for the {name} service is taken: {error}", do="free it, or choose others with --port") from error
    config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", http="h11", ws="none",
                            timeout_keep_alive=60, timeout_graceful_shutdown=1)
    asyncio.run(_until_orphaned(uvicorn.Server(config), listener, alive))


async def _until_orphaned(server: uvicorn.Server, listener: socket.socket, alive: int | None) -> None:
    if alive is not None:
        asyncio.get_running_loop().add_reader(alive, os._exit, 0)
    await server.serve(sockets=[listener])


def _reserve(port: int) -> socket.socket:
    """A socket that holds a loopback port without listening on it.

    A port that is merely found free can be taken before it is used, and a client that connects to a dead port in the
    ephemeral range can even meet itself. One that is bound is neither given away nor answered.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if port and _answers(("127.0.0.1", port)):  # SO_REUSEPORT would let us sit beside our own user's other program
        held.close()
        raise ConfigError(f"port {port} is taken", do="free it, or choose others with --port")
    try:
        held.bind(("127.0.0.1", port))
    except OSError as error:
        held.close()
        raise ConfigError(f"port {port} cannot be used: {error.strerror}", do="free it, or choose others with --port") from error
    return held


def _answers(address: Any) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(address) == 0


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yaoki.examples.travel.host", description="Run the travel agency's services.")
    parser.add_argument("--dir", type=Path, required=True, help="folder for the databases")
    parser.add_argument("--port", type=int, default=0, help="first of six ports; any free ones if left out")
    parser.add_argument("--seed", default="0", help="seed of the faults, if the folder has a switch for them")
    parser.add_argument("--store", action="append", default=[], metavar="SERVICE=URL", help="a service's database")
    given = parser.parse_args(words)
    try:
        given.dir.mkdir(parents=True, exist_ok=True)
        host = Host(given.dir, stores=dict(each.split("=", 1) for each in given.store), port=given.port, seed=given.seed)
        return host.run(sys.stdin.fileno())
    except YaokiError as error:
        print(json.dumps({"failed": "", **error.to_dict()}), flush=True)
        return 2
    except OSError as error:
        print(json.dumps({"failed": "", "message": f"{given.dir} cannot be used: {error.strerror}", "do": "name a folder you may write to"}), flush=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
