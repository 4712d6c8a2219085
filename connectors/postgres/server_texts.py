"""PostgreSQL's own text of a binary value, asked of the server: for types whose binary form is not understood here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors, pq

from connectors.postgres.errors import translated

# format() writes a value by its type's output function; a cast to text could be one that somebody has defined.
_TEXT = b"SELECT format('%s', $1)"

_TSQUERY = 3615
_EMPTY_QUERY = bytes(4)


class ServerTexts:
    """Asks by a connection beside the stream, one value at a time.

    Names that a value stands for (of ``regclass`` and its like) are those of today's catalog, as in a read of the table.
    Raises as `errors.translated` says.
    """

    def __init__(self, connection: Callable[[], psycopg.Connection[Any]]) -> None:
        self._connection = connection

    def __call__(self, type_oid: int, value: bytes) -> bytes:
        """The text of a value of this type, of the binary form that the server itself sent."""
        if type_oid == _TSQUERY and value == _EMPTY_QUERY:
            return b""  # the server does not take its own binary form of it
        connection = self._connection()
        with translated("asking for a value's text"):
            result = connection.pgconn.exec_params(
                _TEXT, [value], param_types=[type_oid], param_formats=[pq.Format.BINARY]
            )
            if result.status != pq.ExecStatus.TUPLES_OK:
                raise errors.error_from_result(result)
        text = result.get_value(0, 0)
        return b"" if text is None else text
