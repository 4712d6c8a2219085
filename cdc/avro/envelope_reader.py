"""Reading envelopes: one function, generated for a writer's key and value schema, that walks and never decodes.

Fields are taken by name, in whatever order the writer has them, so ours and all of Debezium's go one way.
What stands the same in event after event (most of ``source``, ``transaction.id``, the times) is compared with the
same stretch of the event before, in one comparison, and walked only when it differs. Equal bytes at the same place
of the schema mean the same, so this is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cdc.avro.framing import FRAME_SIZE
from cdc.avro.walk import RUNTIME, compiled, indented, walk_lines
from cdc.avro.written_schema import optional_type, row_schema
from cdc.avro_binary import long_at, string_at
from cdc.errors import Rejected
from cdc.position import TransactionId


class Origin(NamedTuple):
    """What events of one transaction share. ``generation`` 0: the writer gave none, so there is no position."""

    generation: int
    commit_lsn: int
    xid: int


class Envelope(NamedTuple):
    """One envelope, walked. ``sequence_at`` and ``lsn_at``: where these values stand, -1 for null or absent."""

    op: str
    before: bytes | None
    after: bytes | None
    origin: Origin
    total_order: int
    sequence_at: int
    lsn_at: int


EnvelopeReader = Callable[[bytes | None, bytes], Envelope]
"""(framed key, framed value) -> what it says, as a plain tuple. Raises IndexError or ValueError for torn bytes."""

_OPS = {b"\x02" + op.encode(): op for op in "rcudt"}
_IN_RUN = {"source.txId", "source.generation", "transaction.id"}
_OWN = {
    "source.sequence",
    "source.lsn",
    "transaction.total_order",
    "transaction.data_collection_order",
    "op",
}

_ORDER_LINES = [
    "x = b[i]",
    "if x & 1:",
    "    torn()",
    "if x < 128:",
    "    order = x >> 1",
    "    i += 1",
    "elif b[i + 1] < 128:",
    "    order = x >> 1 & 63 | b[i + 1] << 6",
    "    i += 2",
    "else:",
    "    order, i = long_at(b, i)",
]
"""``total_order``, which is never negative and seldom long."""


def envelope_reader(key: Any, envelope: Any) -> EnvelopeReader:
    """The reader for these self-contained schemas; ``key`` is None for records without one. Rejected as unusable."""
    source = _Generator(envelope).source(key)
    try:
        reader: EnvelopeReader = compiled(source, "read", _NAMES)
    except SyntaxError as error:
        raise Rejected("the schema is nested too deeply to be read") from error
    return reader


def _origin(transaction_id: str | None, generation: int | None, xid: int | None) -> Origin:
    if transaction_id is None:
        return Origin(0, 0, xid or 0)
    parsed = TransactionId.parse(transaction_id)
    return Origin(generation or 0, parsed.commit_lsn, parsed.xid)


def _with_null_first(data: bytes, start: int, end: int, tags: list[int]) -> bytes:
    """The row with the tags of unions ``[T, "null"]`` turned to those of ``["null", T]``, as a Table has them."""
    row = bytearray(data[start:end])
    for at in tags:
        row[at - start] ^= 2
    return bytes(row)


_NAMES = RUNTIME | {
    "OPS": _OPS,
    "long_at": long_at,
    "string_at": string_at,
    "make_origin": _origin,
    "with_null_first": _with_null_first,
}


class _Generator:
    """Lays the envelope out as alternating stretches: an event's own fields, and runs that tend to repeat."""

    def __init__(self, envelope: Any) -> None:
        self._row = row_schema(envelope)
        self._body: list[str] = []
        self._run: list[str] = []
        self._runs = 0
        for field in envelope["fields"]:
            self._field(field["name"], field["type"])
        self._end_run()

    def source(self, key: Any) -> str:
        """The text of the module that defines ``read``."""
        memos = [f"m{n}" for n in range(self._runs)]
        sizes = [f"l{n}" for n in range(self._runs)]
        captured = ["transaction_id", "generation", "xid", "in_source", "in_transaction"]
        kept = [*memos, *sizes, *captured, "stale", "origin"]
        key_lines: list[str] = []
        if key is not None:
            key_lines = [
                "b = k",
                f"i = {FRAME_SIZE}",
                *walk_lines(key),
                "if i != len(b):",
                "    torn()",
            ]
        read = [
            "def read(k, v):",
            *indented(
                [
                    f"nonlocal {', '.join(kept)}",
                    *key_lines,
                    "b = v",
                    f"i = {FRAME_SIZE}",
                    "before = after = None",
                    "order = 0",
                    "sequence_at = lsn_at = -1",
                    *self._body,
                    "if i != len(b):",
                    "    torn()",
                    "if stale:",
                    "    origin = make_origin(transaction_id, generation, xid)",
                    "    stale = False",
                    "return op, before, after, origin, order, sequence_at, lsn_at",
                ]
            ),
        ]
        return "\n".join(
            [
                "def make():",
                *indented([f"{name} = None" for name in kept]),
                *indented([f"{name} = 0" for name in sizes]),
                "    stale = True",
                *indented(read),
                "    return read",
                "read = make()",
            ]
        )

    def _field(self, name: str, schema: Any) -> None:
        match name:
            case "before" | "after":
                self._own(self._row_lines(name, schema))
            case "op":
                self._own(["op = OPS.get(b[i:i + 2]) or torn()", "i += 2"])
            case "source" | "transaction":
                self._struct(name, schema)
            case _:
                self._run += walk_lines(schema)

    def _struct(self, name: str, schema: Any) -> None:
        record, nullable, null_last = optional_type(schema)
        if not isinstance(record, dict) or record.get("type") != "record":
            raise Rejected(f"the event's {name} is no record")
        present = f"in_{name}"
        if nullable:
            self._run += [
                "t0 = b[i]",
                "if t0 != 0 and t0 != 2:",
                "    torn()",
                f"{present} = t0 == {0 if null_last else 2}",
                "i += 1",
            ]
        else:
            self._run += [f"{present} = True"]
        for field in record["fields"]:
            path = f"{name}.{field['name']}"
            lines = self._value_lines(path, field["type"])
            guarded = lines if not nullable else [f"if {present}:", *indented(lines or ["pass"])]
            if path in _OWN:
                self._own(guarded)
            else:
                self._run += guarded

    def _value_lines(self, path: str, schema: Any) -> list[str]:
        inner, nullable, null_last = (
            optional_type(schema) if path in _OWN | _IN_RUN else (schema, False, False)
        )
        match path:
            case "source.sequence" | "source.lsn":
                take = [f"{path.partition('.')[2]}_at = i", *walk_lines(inner)]
            case "transaction.total_order":
                take = _ORDER_LINES
            case "source.txId":
                take = ["xid, i = long_at(b, i)"]
            case "source.generation":
                take = ["generation, i = long_at(b, i)"]
            case "transaction.id":
                take = ["transaction_id, i = string_at(b, i)"]
            case _:
                return walk_lines(schema)
        if not nullable:
            return take
        present = 0 if null_last else 2
        return [
            "t0 = b[i]",
            "i += 1",
            f"if t0 == {present}:",
            *indented(take),
            f"elif t0 != {2 - present}:",
            "    torn()",
        ]

    def _row_lines(self, name: str, schema: Any) -> list[str]:
        _, nullable, null_last = optional_type(schema)
        lines, turned = [], False
        for field in self._row["fields"]:
            union = optional_type(field["type"])
            if union[1] and union[2]:
                turned = True
                lines += ["tags.append(i)"]
            lines += walk_lines(field["type"])
        cut = "with_null_first(b, s, i, tags)" if turned else "b[s:i]"
        take = ["s = i", *(["tags = []"] if turned else []), *lines, f"{name} = {cut}"]
        if not nullable:
            return take
        present = 0 if null_last else 2
        return [
            "t0 = b[i]",
            "i += 1",
            f"if t0 == {present}:",
            *indented(take),
            f"elif t0 != {2 - present}:",
            "    torn()",
        ]

    def _own(self, lines: list[str]) -> None:
        self._end_run()
        self._body += lines

    def _end_run(self) -> None:
        if not self._run:
            return
        n = self._runs
        captures = [
            f"{name} = None"
            for name in ("transaction_id", "generation", "xid")
            if any(f"{name}, i =" in line for line in self._run)
        ]
        self._body += [
            f"if b[i:i + l{n}] == m{n}:",
            f"    i += l{n}",
            "else:",
            f"    m{n} = None",
            "    stale = True" if captures else "    pass",
            "    r = i",
            *indented(captures),
            *indented(self._run),
            f"    m{n} = b[r:i]",
            f"    l{n} = i - r",
        ]
        self._runs += 1
        self._run = []
