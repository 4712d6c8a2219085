"""PostgreSQL's binary rows to Avro rows: one generated function per road and table shape, no call per column.

The log (pgoutput's TupleData) and COPY (binary format) carry values in the same form, so the same snippets serve
both roads and give identical bytes for identical values.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, Final, NamedTuple

from cdc import accelerators
from cdc.avro_binary import NULL, PRESENT, bytes_bytes
from cdc.errors import Failed
from connectors.postgres.codec import Codec, Unfit, Unread, compile_code, encoder_of, number
from connectors.postgres.exact_rows import (
    AskText,
    ExactRows,
    ReadColumn,
    UnexpectedNull,
    torn,
)
from connectors.postgres.handling import DEFAULT, Handling
from connectors.postgres.types import Attribute, codec_of

StreamRow = Callable[[bytes, int], tuple[bytes, bytes, tuple[str, ...], int]]
CopyRow = Callable[[bytes, int], tuple[bytes, bytes, int]]

native: Final = accelerators.load("connectors.postgres._transcoder")
"""The compiled form of all this; None where only Python's runs."""

_NULL, _UNCHANGED, _TEXT, _BINARY = b"nutb"


class RowTranscoder:
    """Transcodes the rows of one table shape; ``key`` names the columns of the message key, in order.

    All functions take ``bytes`` (a slice of a memoryview costs more than the copy) and an offset where the tuple's
    column count stands, and return the offset behind it. The Avro row is a record of the columns in order, the key
    one of the key columns; the key is empty when ``key`` is. Excluded columns stand in the log's tuples, and neither
    in COPY's nor in the Avro row.

    - ``stream_row(frame, offset) -> (row, key, unchanged, end)``: pgoutput's TupleData of a whole row.
      ``unchanged`` names the columns that the log did not carry (unchanged TOAST); their placeholder is in the row.
    - ``old_row``: the same for an old image that carries only the key: where the log has no value, NOT NULL columns
      hold Debezium's fillers.
    - ``copy_row(data, offset) -> (row, key, end)``: a tuple of COPY's binary format. Columns of types whose binary
      form is not understood have to be selected as text there (see ``as_text``).

    - ``copied(rows) -> [(key, row)]``: every tuple of a list, each from its beginning, by ``copy_row``.

    A row with values that their columns' forms cannot carry is an `ExactRow`.
    Raises UnexpectedNull, and Failed for a value that the mapping cannot carry or a tuple that is torn.
    ``handling`` is how values are represented; ``ask`` gives the text of a value whose binary form is not understood
    (without it, such a value is Failed).
    ``compiled``: whether to use the accelerator, if there is one; ``program`` is its form of these functions.
    """

    def __init__(
        self,
        columns: Sequence[Attribute],
        key: Sequence[str] = (),
        *,
        handling: Handling = DEFAULT,
        ask: AskText | None = None,
        compiled: bool = True,
    ) -> None:
        accelerator = native if compiled else None
        made = _functions(tuple(columns), tuple(key), handling, ask, accelerator)
        self.program = made.program
        self.stream_row: StreamRow = made.stream_row
        self.old_row: StreamRow = made.old_row
        self.copy_row: CopyRow = made.copy_row
        self.copied: Callable[[list[bytes]], list[tuple[bytes, bytes]]] = made.copied
        self.as_text: tuple[str, ...] = tuple(
            column.name for column in columns if codec_of(column, handling).text_only
        )
        """Columns to be read as text in COPY."""


class _Functions(NamedTuple):
    stream_row: StreamRow
    old_row: StreamRow
    copy_row: CopyRow
    copied: Callable[[list[bytes]], list[tuple[bytes, bytes]]]
    program: Any = None


@lru_cache(maxsize=256)
def _functions(
    columns: tuple[Attribute, ...],
    key: tuple[str, ...],
    handling: Handling,
    ask: AskText | None,
    compiled: ModuleType | None,
) -> _Functions:
    names = [column.name for column in columns]
    missing = set(key) - {column.name for column in columns if not column.excluded}
    if missing:
        raise Failed(f"key columns {sorted(missing)} are not among the table's columns {names}")
    read = [_read_column(column, handling, in_key=column.name in key) for column in columns]
    codecs = [column.codec for column in read]
    exact = ExactRows(read, key, ask)
    scope: dict[str, object] = {
        "StructError": struct.error,
        "Unfit": Unfit,
        "Unread": Unread,
        "UnexpectedNull": UnexpectedNull,
        "exact_row": exact.row,
        "join": b"".join,
        "NAMES": tuple(names),
        "torn": torn,
    }
    for index, column in enumerate(read):
        at = number(str(index))
        scope.update({at(name): value for name, value in column.codec.scope.items()})
        scope[at("text_@")] = _text_reader(column.codec)
        scope[at("absent_@")] = column.absent
        scope[at("null_@")] = column.codec.null
    stream_row, old_row, copy_row = (
        compile_code(_source(columns, codecs, key, road), scope, road)
        for road in ("stream_row", "old_row", "copy_row")
    )
    if compiled is None or not _plain(columns, codecs):
        return _Functions(stream_row, old_row, copy_row, _copied_by(copy_row))
    program = compiled.Program(
        tuple(_column_code(column) for column in read),
        tuple(names.index(name) for name in key),
        *(stream_row, old_row, copy_row),
    )
    return _Functions(
        program.stream_row, program.old_row, program.copy_row, program.copied, program
    )


def _plain(columns: Sequence[Attribute], codecs: Sequence[Codec]) -> bool:
    """Whether the accelerator knows what becomes of these columns: it passes none over, and leaves NULL a NULL."""
    return not any(
        column.excluded or codec.null is not None
        for column, codec in zip(columns, codecs, strict=True)
    )


def _copied_by(copy_row: CopyRow) -> Callable[[list[bytes]], list[tuple[bytes, bytes]]]:
    return lambda rows: [(key, row) for row, key, _ in (copy_row(data, 0) for data in rows)]


def _read_column(column: Attribute, handling: Handling, *, in_key: bool) -> ReadColumn:
    codec = codec_of(column, handling.of_keys if in_key else handling)
    absent = codec.filler if column.not_null else NULL
    if codec.placeholder is not None:
        absent = codec.placeholder(handling.placeholder)
        if not column.not_null:
            absent = PRESENT + absent
    return ReadColumn(
        column.name,
        column.type_oid,
        not column.not_null,
        in_key,
        codec,
        absent,
        column.excluded,
    )


def _column_code(column: ReadColumn) -> tuple[object, ...]:
    """A column as the accelerator's Program takes it."""
    codec = column.codec
    operation, parameter = codec.encode.native
    return (
        *(operation, parameter),
        *(column.nullable, column.in_key, codec.text_only),
        *(column.name, column.absent, codec.filler),
        *(encoder_of(codec), _text_reader(codec)),
    )


def _source(
    columns: Sequence[Attribute], codecs: Sequence[Codec], key: Sequence[str], road: str
) -> list[str]:
    """The source of one function. Column i leaves its bytes in ``c<i>_0``, ``c<i>_1``, …, a nullable's tag in ``t<i>``."""
    by_name = {column.name: index for index, column in enumerate(columns)}
    if road == "copy_row":
        columns = [column for column in columns if not column.excluded]
    count = len(columns)
    body = [
        "if f[o] << 8 | f[o + 1] != %d:" % count,  # noqa: UP031 - the % reads better beside the code's braces
        f"    raise ValueError('a tuple of other than {count} columns')",
        "o += 2",
    ]
    if road != "copy_row":
        body.append("u = ()")
    parts = []
    for column in columns:
        if column.excluded:
            body += _PASSED_OVER
            continue
        index = by_name[column.name]
        body += _column(index, column, codecs[index], road, in_key=column.name in key)
        if not column.not_null:
            parts.append(f"t{index}")
        parts += _variables(index, codecs[index])
    body += ["if o > len(f):", "    raise ValueError('a torn tuple')"]
    key_parts = [part for name in key for part in _variables(by_name[name], codecs[by_name[name]])]
    row = f"join(({''.join(part + ', ' for part in parts)}))"
    key_bytes = f"join(({''.join(part + ', ' for part in key_parts)}))"
    if len(key_parts) == 1:
        key_bytes = key_parts[0]
    body.append(f"return {row}, {key_bytes}, {'' if road == 'copy_row' else 'u, '}o")
    return [
        f"def {road}(f, o):",
        "    begin = o",
        "    try:",
        *(f"        {line}" for line in body),
        "    except (Unfit, Unread):",
        f"        row, key, u, o = exact_row(f, begin, {road!r})",
        f"        return row, key, {'' if road == 'copy_row' else 'u, '}o",
        "    except (ValueError, IndexError, StructError, OverflowError, KeyError) as error:",
        f"        raise torn(NAMES, error, {road!r}) from error",
    ]


_PASSED_OVER = (
    "k = f[o]",
    f"if k == {_BINARY} or k == {_TEXT}:",
    "    o += 5 + read_size(f, o + 1)[0]",
    f"elif k == {_NULL} or k == {_UNCHANGED}:",
    "    o += 1",
    "else:",
    "    raise ValueError('an unknown kind of column')",
)
"""The lines for an excluded column."""


def _variables(index: int, codec: Codec) -> list[str]:
    return [f"c{index}_{piece}" for piece in range(len(codec.encode.pieces))]


def _column(index: int, column: Attribute, codec: Codec, road: str, *, in_key: bool) -> list[str]:
    at = number(str(index))
    variables = _variables(index, codec)
    rest = [f"{variable} = b''" for variable in variables[1:]]
    value = [at(line) for line in codec.encode.lines]
    value += [
        f"{var} = {at(piece)}" for var, piece in zip(variables, codec.encode.pieces, strict=True)
    ]
    if not column.not_null:
        value.append(f"t{index} = {PRESENT!r}")
    if column.not_null:
        null = [f"raise UnexpectedNull({column.name!r})"]
    else:
        null = [f"t{index} = {NULL!r}", *(f"{variable} = b''" for variable in variables)]
        if codec.null is not None and road != "old_row":  # an old image lacks what is NULL there
            null = [f"t{index} = b''", f"{variables[0]} = null_{index}", *rest]
    if codec.text_only and road != "copy_row":
        value = ["unread()"]
    elif codec.text_only:
        value = [f"{variables[0]}, o = text_{index}(f, o)", *rest]
        if not column.not_null:
            value.append(f"t{index} = {PRESENT!r}")
    if road == "copy_row":
        # Only the length of a NULL, -1, begins with all bits set.
        return [
            "if f[o] != 255:",
            "    q = o",
            *(f"    {line}" for line in value),
            "else:",
            "    o += 4",
            *(f"    {line}" for line in null),
        ]
    if road == "old_row" and column.not_null and not in_key:
        null = [f"{variables[0]} = {codec.filler!r}", *rest]
    other = [f"{variables[0]}, o = text_{index}(f, o + 1)", *rest]
    unchanged = ["o += 1", f"u += (NAMES[{index}],)", f"{variables[0]} = absent_{index}", *rest]
    if not column.not_null:
        other.append(f"t{index} = {PRESENT!r}")
        unchanged.append(f"t{index} = b''")  # the placeholder brings its tag along
    return [
        "k = f[o]",
        f"if k == {_BINARY}:",
        "    q = o + 1",
        *(f"    {line}" for line in value),
        f"elif k == {_NULL}:",
        "    o += 1",
        *(f"    {line}" for line in null),
        f"elif k == {_TEXT}:",
        *(f"    {line}" for line in other),
        f"elif k == {_UNCHANGED}:",
        *(f"    {line}" for line in unchanged),
        "else:",
        "    raise ValueError('an unknown kind of column')",
    ]


def _text_reader(codec: Codec) -> Callable[[bytes, int], tuple[bytes, int]]:
    """Reads a value of kind ``t``: by way of its binary form, so that both kinds give the same bytes."""
    encode = encoder_of(codec)

    def read(frame: bytes, at: int) -> tuple[bytes, int]:
        start = at + 4
        end = start + int.from_bytes(frame[at:start], "big")
        if codec.spelled:
            return bytes_bytes(frame[start:end]), end
        value = codec.from_text(frame[start:end])
        return encode(len(value).to_bytes(4, "big") + value, 0)[0], end

    return read
