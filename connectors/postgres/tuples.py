"""Avro rows to tuples of COPY's binary format: the mirror of `transcoder`, from the same type table."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Final, NamedTuple

from cdc import accelerators
from cdc.errors import Failed, Rejected
from cdc.exact_row import texts_of
from cdc.table import Column
from connectors.postgres.arrays import array
from connectors.postgres.codec import Codec, compile_code, decoder_of, number, text_like
from connectors.postgres.forms import codec_of_column

native: Final = accelerators.load("connectors.postgres._tuples")
"""The compiled form of all this; None where only Python's runs."""

HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
"""What a COPY BINARY stream begins with: signature, flags, no extension."""
TRAILER: Final = b"\xff\xff"
"""What it ends with."""


class TupleTranscoder:
    """Transcodes the rows of one row schema; ``key`` names the columns of the message key, in order.

    ``staged_types`` are the types, in column order, whose binary forms the tuples hold: a staging table has to be
    declared with exactly these, and they cast to the source's types.

    - ``tuple_of(row)``: one tuple of COPY BINARY, its column count in front; ``tuples(rows)``: those of a list, one
      behind the other; ``headed(head, row)``: the tuple with ``head`` in place of its count.
      None of them takes an ExactRow.
    - ``columns_of(row)``: each column's binary value, None for NULL.
    - ``key_tuple(key)``: the tuple of a key record, and ``key_columns_of(key)`` its values.
    - ``key_text(key)``: the key's values as PostgreSQL's text, to be used as parameters (``$1::bigint``).

    All raise Rejected for bytes that are no row of this schema. ``compiled``: whether to use the accelerator, if there
    is one.
    """

    def __init__(
        self, columns: Sequence[Column], key: Sequence[str] = (), *, compiled: bool = True
    ) -> None:
        by_name = {column.name: column for column in columns}
        missing = set(key) - by_name.keys()
        if missing:
            raise Failed(f"key columns {sorted(missing)} are not among {sorted(by_name)}")
        forms = tuple(_form(column) for column in columns)
        # A key record has no unions.
        key_forms = tuple(_Form(_form(by_name[name]).codec, nullable=False) for name in key)
        accelerator = native if compiled else None
        made, key_made = _functions(forms, accelerator), _functions(key_forms, accelerator)
        self.staged_types = tuple(form.codec.pg_type for form in forms)
        self.key_types = tuple(form.codec.pg_type for form in key_forms)
        self.tuple_of: Callable[[bytes], bytes] = made.tuple_of
        self.tuples: Callable[[list[bytes]], bytes] = made.tuples
        self.headed: Callable[[bytes, bytes], bytes] = made.headed
        self._columns_of = made.columns_of
        self._places = {column.name: place for place, column in enumerate(columns)}
        self._codecs = tuple(form.codec for form in forms)
        self.key_tuple: Callable[[bytes], bytes] = key_made.tuple_of
        self.key_columns_of: Callable[[bytes], list[bytes | None]] = key_made.columns_of
        self._key_codecs = tuple(form.codec for form in key_forms)

    def columns_of(self, row: bytes) -> list[bytes | None]:
        """Each column's binary value, None for NULL; of an ExactRow the exact ones."""
        values = self._columns_of(row)
        for name, text in texts_of(row).items():
            place = self._places[name]
            try:
                values[place] = _as_staged(self._codecs[place]).from_text(text.encode())
            except (ValueError, IndexError, struct.error, OverflowError) as error:
                raise _rejected(error) from error
        return values

    def key_text(self, key: bytes) -> tuple[str, ...]:
        """The key's values as PostgreSQL's text."""
        return tuple(
            _as_staged(codec).to_text(value).decode()
            for codec, value in zip(self._key_codecs, self.key_columns_of(key), strict=True)
            if value is not None
        )


class _Form(NamedTuple):
    codec: Codec
    nullable: bool


class _Functions(NamedTuple):
    tuple_of: Callable[[bytes], bytes]
    columns_of: Callable[[bytes], list[bytes | None]]
    tuples: Callable[[list[bytes]], bytes]
    headed: Callable[[bytes, bytes], bytes]


def _form(column: Column) -> _Form:
    try:
        return _Form(codec_of_column(column), column.nullable)
    except ValueError as error:
        raise Failed(
            f"column {column.name}: {error}", "leave the column out of the sink"
        ) from error


def _functions(forms: tuple[_Form, ...], accelerator: ModuleType | None) -> _Functions:
    scope: dict[str, object] = {
        "Rejected": Rejected,
        "StructError": struct.error,
        "join": b"".join,
        "rejected": _rejected,
    }
    for index, form in enumerate(forms):
        at = number(str(index))
        scope.update({at(name): value for name, value in form.codec.scope.items()})
    tuple_of, columns_of = (
        compile_code(_source(forms, name), scope, name) for name in ("tuple_of", "columns_of")
    )
    if accelerator is None:
        return _Functions(
            tuple_of,
            columns_of,
            lambda rows: b"".join(map(tuple_of, rows)),
            lambda head, row: head + tuple_of(row)[2:],
        )
    columns = tuple(
        (*codec.decode.native, nullable, decoder_of(codec)) for codec, nullable in forms
    )
    program = accelerator.Program(columns, tuple_of, columns_of)
    return _Functions(program.tuple_of, program.columns_of, program.tuples, program.headed)


def _source(forms: Sequence[_Form], name: str) -> list[str]:
    body = ["p = 0"]
    parts: list[str] = []
    for index, (codec, nullable) in enumerate(forms):
        at = number(str(index))
        wanted = codec.decode.sized if name == "tuple_of" else (codec.decode.value,)
        variables = [f"c{index}_{piece}" for piece in range(len(wanted))]
        parts += variables
        value = [at(line) for line in codec.decode.lines]
        value += [f"{var} = {at(piece)}" for var, piece in zip(variables, wanted, strict=True)]
        if not nullable:
            body += value
            continue
        absent = ["b'\\xff\\xff\\xff\\xff'"] if name == "tuple_of" else ["None"]
        absent += ["b''"] * (len(variables) - 1)
        body += [
            "if r[p] == 2:",
            "    p += 1",
            *(f"    {line}" for line in value),
            "elif r[p]:",
            "    raise ValueError('an unknown branch of a union')",
            "else:",
            "    p += 1",
            *(f"    {var} = {nothing}" for var, nothing in zip(variables, absent, strict=True)),
        ]
    body += ["if p != len(r):", "    raise ValueError('the record ends elsewhere')"]
    listed = "".join(f"{part}, " for part in parts)
    if name == "tuple_of":
        body.append(f"return join(({struct.pack('>h', len(forms))!r}, {listed}))")
    else:
        body.append(f"return [{listed}]")
    return [
        f"def {name}(r):",
        "    try:",
        *(f"        {line}" for line in body),
        "    except (ValueError, IndexError, StructError, OverflowError, KeyError) as error:",
        "        raise rejected(error) from error",
    ]


_STAGED_AS_TEXT: Final = text_like("text")
_TEXTS: Final = array(_STAGED_AS_TEXT, 25)


def _as_staged(codec: Codec) -> Codec:
    """What a staging column of this codec's holds: the text of types that a replica casts from theirs."""
    return {"text": _STAGED_AS_TEXT, "text[]": _TEXTS}.get(codec.pg_type, codec)


def _rejected(error: Exception) -> Rejected:
    return Rejected(
        f"a row does not fit its schema: {error}",
        "look at the record in the dead-letter topic, and at who else writes to this topic",
    )
