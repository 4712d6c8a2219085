"""A table with what partitions applied apart find hard: keys that change, values out of line, TRUNCATE in mid-traffic."""

from __future__ import annotations

import random
import threading
import time
from types import TracebackType
from typing import Self

import psycopg

TABLES = ("books", "loans")
_KEYS = 400

_SCHEMA = """
CREATE TABLE books (id int PRIMARY KEY, title text, body text);
ALTER TABLE books ALTER body SET STORAGE EXTERNAL;
CREATE TABLE loans (id int PRIMARY KEY, book int, note text);
INSERT INTO books SELECT n, 'title ' || n, repeat(md5(n::text), 100) FROM generate_series(1, 200) n;
"""


def create(dsn: str) -> None:
    """Make and fill the shelf."""
    with psycopg.connect(dsn) as connection:
        connection.execute(_SCHEMA)


class Traffic:
    """One writer in a thread until the block ends; ``truncates`` and ``moves`` count what it is there for."""

    def __init__(self, dsn: str, *, seed: int, pause: float = 0.003) -> None:
        self._dsn = dsn
        self._chooser = random.Random(seed)
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.truncates = self.moves = self.commits = 0
        self.errors: list[Exception] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is None and self.errors:
            raise self.errors[0]

    def _write(self) -> None:
        try:
            with psycopg.connect(self._dsn) as connection:
                while not self._stop.is_set():
                    for _ in range(self._chooser.randrange(1, 6)):
                        self._change(connection)
                    connection.commit()
                    self.commits += 1
                    time.sleep(self._pause)
        except psycopg.Error as error:
            self.errors.append(error)

    def _change(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        chance = self._chooser.random()
        key, other = self._chooser.randrange(_KEYS), self._chooser.randrange(_KEYS)
        if chance < 0.004:
            table = self._chooser.choice(TABLES)
            connection.execute(f"TRUNCATE {table}")
            self.truncates += 1
        elif chance < 0.15:
            # The log carries neither the old row nor the body.
            moved = connection.execute(
                "UPDATE books SET id = %s WHERE id = %s AND NOT EXISTS (SELECT FROM books WHERE id = %s)",
                (other, key, other),
            )
            self.moves += moved.rowcount
        elif chance < 0.4:
            connection.execute(
                "INSERT INTO books VALUES (%s, 'new', repeat(md5(%s::text), 100))"
                " ON CONFLICT (id) DO UPDATE SET title = books.title || '+'",
                (key, other),
            )
        elif chance < 0.5:
            connection.execute("DELETE FROM books WHERE id = %s", (key,))
        elif chance < 0.9:
            connection.execute(
                "INSERT INTO loans VALUES (%s, %s, 'first') ON CONFLICT (id) DO UPDATE SET note = loans.note || %s",
                (key, other, str(key % 10)),
            )
        else:
            connection.execute("DELETE FROM loans WHERE id = %s", (key,))
