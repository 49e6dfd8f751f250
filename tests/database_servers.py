"""PostgreSQL and MariaDB servers for the tests: private, on loopback, gone when the tests are.

They run without root's rights, as their packages do, on a folder of their own. The system's own
servers are not touched. When the test process dies in whatever way, the kernel ends them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

_UID = 65534 if os.getuid() == 0 else os.getuid()
PASSWORD = "p@ss:w/rd %41?#"  # noqa: S105 - of servers that live for a test run
"""What a careless way of writing addresses would stumble over, and what no message may show."""


class Server(ABC):
    """A database server that is running."""

    drivername: str
    admin = "admin"
    end_signal = "KILL"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="recallfs-server-"))
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        if os.getuid() == 0:
            os.chown(self.data, _UID, _UID)
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._initialise()
        self.start()

    @abstractmethod
    def _initialise(self) -> None:
        """Make the data folder's content."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return the command that serves in the foreground."""

    @abstractmethod
    def _statements(self, database: str) -> tuple[Sequence[str], Sequence[str]]:
        """Return what makes a database and its user, and what drops both."""

    def url(self, database: str, *, user: str = "", password: str = PASSWORD) -> sa.URL:
        """Return the address of a database, as its user of the same name or as the given one."""
        return sa.URL.create(
            self.drivername, user or database, password, "127.0.0.1", self.port, database
        )

    def start(self) -> None:
        """Start serving, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                _as_user(self._command(), end_signal=self.end_signal),
                cwd=self.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + 60
        while True:
            try:
                self._run(["SELECT 1"])
                return
            except sa.exc.OperationalError:
                said = (self.folder / "log").read_text(errors="replace")
                assert self._process.poll() is None, f"the server ended: {said[-2000:]}"
                assert time.monotonic() < end, f"the server does not answer: {said[-2000:]}"
                time.sleep(0.05)

    @property
    def pid(self) -> int | None:
        """Process id of the server."""
        return None if self._process is None else self._process.pid

    def kill(self) -> None:
        """End the server as a crash does."""
        assert self._process is not None
        # PostgreSQL's children must not outlive it, so its own word for a crash is used.
        self._process.send_signal(3 if self.end_signal == "QUIT" else 9)
        self._process.wait(60)

    def stop(self) -> None:
        """End the server and drop what it kept."""
        self.kill()
        shutil.rmtree(self.folder)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """Make a database with a user who owns it and nothing else; drop both afterwards."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self._run(self._statements(name)[0])
        try:
            yield name
        finally:
            self.drop(name)

    def drop(self, database: str) -> None:
        """Drop a database and the user of the same name."""
        self._run(self._statements(database)[1])

    @property
    @abstractmethod
    def _admin_url(self) -> sa.URL:
        """Address of the database that is always there."""

    def run(self, *statements: str, database: str = "") -> None:
        """Run statements with all rights, by default in the database that is always there."""
        self._run(statements, database=database)

    def _run(self, statements: Sequence[str], *, database: str = "") -> None:
        url = self._admin_url.set(database=database) if database else self._admin_url
        engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%"))


class PostgreSQL(Server):
    """PostgreSQL, ordering text as English dictionaries do where that is not said otherwise."""

    drivername = "postgresql+psycopg"
    end_signal = "QUIT"

    @property
    def _admin_url(self) -> sa.URL:
        return self.url("postgres", user=self.admin)

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        version = subprocess.run(
            [_postgresql("postgres"), "--version"], capture_output=True, text=True, check=True
        )
        # "postgres (PostgreSQL) 15.3 (Debian …)"; before 15 a cluster had no such choice.
        has_icu = int(version.stdout.split()[2].partition(".")[0]) >= 15
        order = ["--locale-provider=icu", "--icu-locale=en-US"] if has_icu else []
        _run_quietly(
            [
                _postgresql("initdb"),
                "--no-sync",
                f"--pgdata={self.data}",
                f"--username={self.admin}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                *order,
            ]
        )

    def _command(self) -> Sequence[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
        }
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        return [_postgresql("postgres"), "-D", str(self.data), "-p", str(self.port), *options]

    def _statements(self, database: str) -> tuple[Sequence[str], Sequence[str]]:
        make = [
            f"CREATE USER {database} PASSWORD '{PASSWORD}'",
            f"CREATE DATABASE {database} OWNER {database}",
        ]
        return make, [f"DROP DATABASE {database} WITH (FORCE)", f"DROP USER {database}"]


class MariaDB(Server):
    """MariaDB as it is without any configuration: Latin-1 and Swedish order where not said."""

    drivername = "mysql+pymysql"

    def write_settings(self, home: Path, user: str, base: Path) -> None:
        """Write DataJoint's settings, as a person of a lab with Spyglass has them at home."""
        home.mkdir(exist_ok=True)
        settings = {
            "database.host": "127.0.0.1",
            "database.port": self.port,
            "database.user": user,
            "database.password": PASSWORD,
            "database.use_tls": False,
            "safemode": False,
            "loglevel": "WARNING",
            "custom": {"spyglass_dirs": {"base": str(base)}},
        }
        (home / ".datajoint_config.json").write_text(json.dumps(settings))

    @property
    def _admin_url(self) -> sa.URL:
        return self.url("mysql", user=self.admin)

    def _initialise(self) -> None:
        (self.folder / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{self.admin}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{self.admin}'@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        _run_quietly(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--datadir={self.data}",
                "--auth-root-authentication-method=normal",
                "--skip-name-resolve",
                "--skip-test-db",
                # Two that begin together may have one process number, each in its own namespace,
                # and name their temporary tables by it.
                f"--tmpdir={self.data}",
            ]
        )

    def _command(self) -> Sequence[str]:
        return [
            _program("mariadbd", "/usr/sbin"),
            "--no-defaults",
            f"--datadir={self.data}",
            f"--socket={self.data / 'socket'}",
            f"--pid-file={self.data / 'pid'}",
            # A server that starts clears this folder of what others of its kind have there.
            f"--tmpdir={self.data}",
            f"--init-file={self.folder / 'init.sql'}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--innodb-buffer-pool-size=32M",
            "--innodb-flush-log-at-trx-commit=2",
            "--max-connections=200",
        ]

    def _statements(self, database: str) -> tuple[Sequence[str], Sequence[str]]:
        user = f"'{database}'@'127.0.0.1'"
        make = [
            f"CREATE DATABASE {database}",
            f"CREATE USER {user} IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL ON {database}.* TO {user}",
        ]
        return make, [f"DROP DATABASE {database}", f"DROP USER {user}"]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _as_user(command: Sequence[str], *, end_signal: str) -> list[str]:
    """Have a command run without rights, and ended by the kernel when this process ends."""
    become = [f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups"] if os.getuid() == 0 else []
    return ["setpriv", *become, "--pdeathsig", end_signal, *command]


def _run_quietly(command: Sequence[str]) -> None:
    done = subprocess.run(
        _as_user(command, end_signal="KILL"), capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def _program(name: str, *folders: str) -> str:
    """Find a server's program: distributions keep it off the PATH of ordinary users."""
    found = shutil.which(name, path=os.pathsep.join((*folders, os.environ["PATH"])))
    assert found, f"{name} is not installed; see scripts/services"
    return found


def _postgresql(name: str) -> str:
    """Find a program of the newest PostgreSQL."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    newest = sorted(folders, key=lambda folder: float(folder.parent.name), reverse=True)
    return _program(name, *map(str, newest))


def _serve(kind: type[Server]) -> Iterator[Server]:
    server = kind()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """Give a PostgreSQL server."""
    yield from _serve(PostgreSQL)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """Give a MariaDB server."""
    yield from _serve(MariaDB)


def _fresh(server: Server) -> Iterator[str]:
    with server.database() as name:
        yield server.url(name).render_as_string(hide_password=False)


@pytest.fixture
def postgresql_url(postgresql: Server) -> Iterator[str]:
    """Give the address of an empty PostgreSQL database."""
    yield from _fresh(postgresql)


@pytest.fixture
def mariadb_url(mariadb: Server) -> Iterator[str]:
    """Give the address of an empty MariaDB database."""
    yield from _fresh(mariadb)


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    """Give each of the two servers."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def server_url(server: Server) -> Iterator[str]:
    """Give the address of an empty database on each of the two servers."""
    yield from _fresh(server)
