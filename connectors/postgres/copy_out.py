"""COPY ... TO STDOUT (FORMAT binary), row by row.

The server sends one CopyData message per row; the file's header comes in front of the first row or by itself, the
trailer (a field count of -1) at the end. https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import errors, pq, sql

from cdc.errors import Failed

_SIGNATURE = b"PGCOPY\n\xff\r\n\x00"
_FIXED_HEADER = len(_SIGNATURE) + 8
_TRAILER = b"\xff\xff"


def copy_rows(connection: psycopg.Connection[Any], query: sql.Composable) -> Iterator[bytes]:
    """The rows of a query, each as binary COPY has it: field count, then length and value of each field.

    Must be read to its end, or the connection closed. Raises psycopg.Error as the server does.
    """
    frames = _copy_data(connection, query)
    first = next(frames)
    if not first.startswith(_SIGNATURE):
        raise Failed("a copy does not begin with PostgreSQL's signature")
    extension = int.from_bytes(first[_FIXED_HEADER - 4 : _FIXED_HEADER])
    if row := first[_FIXED_HEADER + extension :]:
        if row == _TRAILER:
            yield from frames
            return
        yield row
    for row in frames:
        if row != _TRAILER:
            yield row


def copy_at_most(
    connection: psycopg.Connection[Any], query: sql.Composable, most_bytes: int
) -> tuple[list[bytes], bool]:
    """The first rows of a query, up to the one that reaches ``most_bytes``; and whether these are all.

    To be called inside a transaction: its snapshot and locks outlive the query that is cut short.
    """
    connection.execute("SAVEPOINT cdc_copy")
    rows: list[bytes] = []
    size = 0
    copying = copy_rows(connection, query)
    for row in copying:
        if size >= most_bytes:
            break
        rows.append(row)
        size += len(row)
    else:
        return rows, True
    connection.cancel_safe()
    with contextlib.suppress(errors.QueryCanceled):
        for _ in copying:  # what was sent already
            pass
    connection.execute("ROLLBACK TO SAVEPOINT cdc_copy")
    return rows, False


def _copy_data(connection: psycopg.Connection[Any], query: sql.Composable) -> Iterator[bytes]:
    pgconn = connection.pgconn
    command = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)
    result = pgconn.exec_(command.as_bytes(connection))
    if result.status != pq.ExecStatus.COPY_OUT:
        raise errors.error_from_result(result)
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    get = pgconn.get_copy_data
    while True:
        length, view = get(1)
        if length > 0:
            yield bytes(view)
        elif length == 0:
            poll.poll()
            pgconn.consume_input()
        else:
            break
    # To the last of them, or the session takes no other command.
    ends = []
    while (end := pgconn.get_result()) is not None:
        ends.append(end)
    for end in ends:
        if end.status == pq.ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(end)
