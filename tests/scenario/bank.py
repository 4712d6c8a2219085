"""The bank: transfers over four tables whose totals agree in every committed state, and a reader that checks it.

Each transaction moves money in three tables and writes a line of history, so in any prefix of the source's commits
accounts, tellers and branches have the same total as the history. Some transactions roll back, some are large.
"""

from __future__ import annotations

import random
import time
from functools import partial

import psycopg

from cdc.testing.alongside import Alongside

TABLES = ("accounts", "tellers", "branches", "history")

_SCHEMA = """
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, filler text);
CREATE TABLE tellers (id int PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE branches (id int PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE history (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int NOT NULL,
                      delta bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO accounts SELECT n, 0, repeat(md5(n::text), 100) FROM generate_series(1, 1000) n;
INSERT INTO tellers SELECT n, 0 FROM generate_series(1, 10) n;
INSERT INTO branches SELECT n, 0 FROM generate_series(1, 3) n;
INSERT INTO history (account, delta) VALUES (1, 0);
ALTER TABLE accounts ALTER filler SET STORAGE EXTERNAL;
"""

_TOTALS = """
SELECT (SELECT sum(balance) FROM accounts), (SELECT sum(balance) FROM tellers),
       (SELECT sum(balance) FROM branches), (SELECT coalesce(sum(delta), 0) FROM history)
"""


def create(dsn: str) -> None:
    """Make and fill the bank."""
    with psycopg.connect(dsn) as connection:
        connection.execute(_SCHEMA)


class Traffic(Alongside):
    """Writers in threads, until the block ends. ``seed`` makes the choices (not the interleaving) repeatable."""

    def __init__(self, dsn: str, *, seed: int, writers: int = 3, pause: float = 0.002) -> None:
        super().__init__(*(partial(self._write, number) for number in range(writers)))
        self._dsn = dsn
        self._seed = seed
        self._pause = pause
        self.commits = 0

    def _write(self, number: int) -> None:
        chooser = random.Random(self._seed * 100 + number)
        while not self.stopping.is_set():
            try:
                with psycopg.connect(self._dsn) as connection:
                    while not self.stopping.is_set():
                        self._transfer(connection, chooser)
                        time.sleep(self._pause)
            except psycopg.OperationalError:
                time.sleep(0.1)  # a test that kills the source goes on when it is back

    def _transfer(
        self, connection: psycopg.Connection[tuple[object, ...]], chooser: random.Random
    ) -> None:
        count = 300 if chooser.random() < 0.01 else chooser.randrange(1, 4)
        accounts = sorted(chooser.sample(range(1, 1001), count))
        teller, branch = chooser.randrange(1, 11), chooser.randrange(1, 4)
        total = 0
        for account in accounts:
            delta = chooser.randrange(-500, 500)
            total += delta
            connection.execute(
                "UPDATE accounts SET balance = balance + %s WHERE id = %s", (delta, account)
            )
            connection.execute(
                "INSERT INTO history (account, delta) VALUES (%s, %s)", (account, delta)
            )
        connection.execute(
            "UPDATE tellers SET balance = balance + %s WHERE id = %s", (total, teller)
        )
        connection.execute(
            "UPDATE branches SET balance = balance + %s WHERE id = %s", (total, branch)
        )
        if chooser.random() < 0.1:
            connection.rollback()
        else:
            connection.commit()
            self.commits += 1


class Auditor(Alongside):
    """Reads the replica in a thread during the whole block: totals agree in every snapshot, and never go back.

    ``audits`` counts snapshots that held a whole bank; a run that saw none proves nothing.
    """

    def __init__(self, dsn: str) -> None:
        super().__init__(self._audit)
        self._dsn = dsn
        self.audits = 0
        self.torn: list[str] = []

    def check(self) -> None:
        """Raise what ended the audit; AssertionError if a snapshot was torn."""
        super().check()
        assert not self.torn, self.torn[:3]

    def _audit(self) -> None:
        lines = -1
        while not self.stopping.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    while not self.stopping.is_set():
                        lines = self._look(connection, lines)
                        time.sleep(0.02)
            except psycopg.OperationalError:
                time.sleep(0.1)

    def _look(self, connection: psycopg.Connection[tuple[object, ...]], lines: int) -> int:
        row = connection.execute(_TOTALS).fetchone()
        count = connection.execute("SELECT count(*) FROM history").fetchone()
        assert row is not None
        assert count is not None
        self.audits += 1
        if len(set(row)) != 1:
            self.torn.append(f"totals of accounts, tellers, branches, history: {row}")
        now = int(str(count[0]))
        if now < lines:
            self.torn.append(f"history went back from {lines} to {now} lines")
        return now
