"""One side of a comparison: digests, hashes and rows of ranges of keys, inside one transaction on one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.sql import Composed

from cdc.avro_binary import NULL, PRESENT
from cdc.errors import Failed
from cdc.exact_row import ExactRow
from cdc.protocols import Bucket, Hashes
from cdc.table import Column, KeyRange, Table, TableId
from connectors.postgres.codec import Unfit, encoder_of
from connectors.postgres.digests import Digests, Present
from connectors.postgres.errors import translated
from connectors.postgres.forms import codec_of_column
from connectors.postgres.masks import Mask
from connectors.postgres.tuples import TupleTranscoder

ToAvro = Callable[[str], tuple[bytes, bool]]
"""A value's Avro bytes, and whether they are exact."""

_MASK = (1 << 64) - 1
_NO_MASKS: Mapping[str, Mask] = {}

# The database's own collation stands for the default one; providers: c (libc), b (built in), i (ICU), d (default).
_COLUMNS = """
SELECT a.attname::text, a.attnotnull, format_type(a.atttypid, a.atttypmod),
       coalesce(CASE coalesce(nullif(l.collprovider, 'd'), 'd')
           WHEN 'c' THEN l.collcollate IN ('C', 'POSIX')
           WHEN 'b' THEN true
           WHEN 'd' THEN (SELECT datlocprovider = 'c' AND datcollate IN ('C', 'POSIX') OR datlocprovider = 'b'
                          FROM pg_database WHERE datname = current_database())
       END, false)
FROM pg_attribute a
LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE a.attrelid = (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname = %s AND c.relname = %s)
  AND a.attnum > 0 AND NOT a.attisdropped
"""


class PostgresRangeReader:
    """`cdc.protocols.RangeReader`; the caller holds the transaction and has locked the table.

    Raises Failed when the table lacks a column of the row schema.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        table: Table,
        target: TableId,
        where: str | None = None,
        masks: Mapping[str, Mask] = _NO_MASKS,
    ) -> None:
        self._connection = connection
        self._table = table
        self._target = target
        self._doing = f"comparing {target}"
        with translated(self._doing):
            found = connection.execute(_COLUMNS, tuple(target)).fetchall()
        present = {name: Present(spelled, bytewise) for name, _, spelled, bytewise in found}
        if missing := [c.name for c in table.columns if c.name not in present]:
            raise Failed(
                f"schema: {target} lacks {', '.join(missing)}",
                "wait until its schema has followed the source",
            )
        self._digests = Digests(table, target, present, where, masks)
        self._keys = TupleTranscoder(table.columns, table.key)
        self._values: dict[str, ToAvro] = {}
        not_null = {name for name, strict, *_ in found if strict}
        if not not_null.issuperset(table.key) and self._fetch(self._digests.without_key()):
            raise Failed(
                f"{target} holds rows with a NULL in their key ({', '.join(table.key)})",
                "remove them: no row of the source is like them",
            )

    def digest(self, key_range: KeyRange, bucket_rows: int, row_limit: int) -> Sequence[Bucket]:
        """Ends first, from the index alone where that can be; then the digests between them.

        Where no index has the keys in our order, ``row_limit`` is not heeded: the whole range is sorted once.
        """
        low, high = self._texts_of(key_range)
        most = row_limit if self._digests.by_index else None
        found = self._fetch(self._digests.ends(low, high, bucket_rows, most))
        ends: list[bytes | None] = [self._key_of(texts) for texts in found]
        if most is None or len(ends) < most // bucket_rows:
            ends.append(key_range.upto)
        return self.digest_at(key_range, ends)

    def digest_at(self, key_range: KeyRange, ends: Sequence[bytes | None]) -> Sequence[Bucket]:
        """Runs between known keys in one statement; where no index serves, all runs in one scan."""
        if self._digests.by_index or len(ends) == 1:
            return self._runs(key_range.after, ends)
        return self._scan(KeyRange(key_range.after, ends[-1]), ends)

    def _runs(self, after: bytes | None, ends: Sequence[bytes | None]) -> list[Bucket]:
        starts = [after, *ends[:-1]]
        closed = [
            (low, high)
            for low, high in zip(starts, ends, strict=True)
            if low is not None and high is not None
        ]
        sums = iter(self._closed_runs(closed))
        return [
            _bucket(high, *next(sums))
            if low is not None and high is not None
            else self._range(low, high)
            for low, high in zip(starts, ends, strict=True)
        ]

    def _closed_runs(self, runs: Sequence[tuple[bytes, bytes]]) -> list[tuple[Any, ...]]:
        if not runs:
            return []
        lows = self._arrays([low for low, _ in runs])
        highs = self._arrays([high for _, high in runs])
        return self._fetch(self._digests.of_runs(lows, highs))

    def _range(self, low: bytes | None, high: bytes | None) -> Bucket:
        ((count, first, second),) = self._fetch(
            self._digests.of_range(*self._texts_of(KeyRange(low, high)))
        )
        return _bucket(high, count, first, second)

    def _scan(self, key_range: KeyRange, ends: Sequence[bytes | None]) -> list[Bucket]:
        inner = [end for end in ends[:-1] if end is not None]
        found = {
            run: sums
            for run, *sums in self._fetch(
                self._digests.in_one_scan(*self._texts_of(key_range), self._arrays(inner))
            )
        }
        return [_bucket(end, *found.get(run, (0, 0, 0))) for run, end in enumerate(ends)]

    def hashes(self, key_range: KeyRange) -> Hashes:
        """One row of the answer per row of the table: a caller bounds the range."""
        keys: list[bytes] = []
        hashes: list[tuple[int, int]] = []
        for *texts, first, second in self._fetch(self._digests.hashes(*self._texts_of(key_range))):
            key = self._key_of(texts)
            if keys and keys[-1] == key:
                raise Failed(
                    f"{self._target} holds a key twice: {', '.join(texts)}",
                    "restore the unique index on its key",
                )
            keys.append(key)
            hashes.append((first & _MASK, second & _MASK))
        return Hashes(keys, hashes)

    def texts(self, keys: Sequence[bytes]) -> Mapping[bytes, Mapping[str, str | None]]:
        """The texts that the digest hashes, or those of the values that it hashes as they are."""
        if not keys:
            return {}
        names = [column.name for column in self._table.columns]
        return {
            keys[number - 1]: dict(zip(names, texts, strict=True))
            for number, *texts in self._fetch(self._digests.texts(self._arrays(keys)))
        }

    def rows(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Made of the texts: a few rows, by a road that needs no more than the row schema."""
        return {key: self._row_of(texts) for key, texts in self.texts(keys).items()}

    def _row_of(self, texts: Mapping[str, str | None]) -> bytes:
        fields: list[bytes] = []
        beside: dict[str, str] = {}
        for column in self._table.columns:
            text = texts[column.name]
            field, exact = self._field(column, text)
            fields.append(field)
            if text is not None and not exact:
                beside[column.name] = text
        row = b"".join(fields)
        return ExactRow(row, beside) if beside else row

    def _key_of(self, texts: Sequence[str]) -> bytes:
        return b"".join(
            self._value(column, text)[0]
            for column, text in zip(self._table.key_columns, texts, strict=True)
        )

    def _field(self, column: Column, text: str | None) -> tuple[bytes, bool]:
        if text is None:
            if not column.nullable:
                raise Failed(
                    f"column {column.name} holds a NULL that the source's schema does not allow"
                )
            return NULL, True
        value, exact = self._value(column, text)
        return PRESENT + value if column.nullable else value, exact

    def _value(self, column: Column, text: str) -> tuple[bytes, bool]:
        to_avro = self._values.get(column.name)
        if to_avro is None:
            to_avro = self._values[column.name] = _to_avro(column)
        return to_avro(text)

    def _texts_of(self, key_range: KeyRange) -> tuple[Sequence[str] | None, Sequence[str] | None]:
        low, high = (None if key is None else self._keys.key_text(key) for key in key_range)
        return low, high

    def _arrays(self, keys: Sequence[bytes]) -> list[list[str]]:
        """One list of texts per key column."""
        texts = [self._keys.key_text(key) for key in keys]
        return [[text[place] for text in texts] for place in range(len(self._table.key))]

    def _fetch(self, query: Composed) -> list[tuple[Any, ...]]:
        with translated(self._doing):
            return self._connection.execute(query).fetchall()


class NoRows:
    """`cdc.protocols.RangeReader` of a table that is not there."""

    def digest(self, key_range: KeyRange, bucket_rows: int, row_limit: int) -> Sequence[Bucket]:  # noqa: ARG002
        """One run without rows."""
        return self.digest_at(key_range, [key_range.upto])

    def digest_at(self, key_range: KeyRange, ends: Sequence[bytes | None]) -> Sequence[Bucket]:  # noqa: ARG002
        """Runs without rows."""
        return [Bucket(end, 0, (0, 0)) for end in ends]

    def hashes(self, key_range: KeyRange) -> Hashes:  # noqa: ARG002
        """Of no row."""
        return Hashes([], [])

    def rows(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:  # noqa: ARG002
        """None of them."""
        return {}

    def texts(self, keys: Sequence[bytes]) -> Mapping[bytes, Mapping[str, str | None]]:  # noqa: ARG002
        """Of none of them."""
        return {}


def _bucket(upto: bytes | None, count: int, first: Any, second: Any) -> Bucket:
    return Bucket(upto, count, (int(first) & _MASK, int(second) & _MASK))


def _to_avro(column: Column) -> ToAvro:
    """A function from a value's text to its Avro bytes; it compiles code, so it is made once for many values."""
    codec = codec_of_column(column)
    encode = encoder_of(codec)

    def to_avro(text: str) -> tuple[bytes, bool]:
        binary = codec.from_text(text.encode())
        try:
            return encode(len(binary).to_bytes(4, "big") + binary, 0)[0], True
        except Unfit as unfit:
            if unfit.nearest is None:
                raise
            return unfit.nearest, False

    return to_avro
