"""Records to events: ours and Debezium's, by the schemas that their writers registered."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import fastavro

from cdc.avro.envelope_reader import EnvelopeReader, envelope_reader
from cdc.avro.envelope_steps import is_ours, native, program_of
from cdc.avro.envelopes import NEW_KEY_HEADER, OLD_KEY_HEADER, UNCHANGED_HEADER, Headers
from cdc.avro.framing import FRAME_SIZE, frame
from cdc.avro.names import topic_characters
from cdc.avro.placeholder import unavailable_columns
from cdc.avro.transaction_mark import decode_mark, is_our_mark
from cdc.avro.values import decode, key_record_values, row_values
from cdc.avro.watermark import SchemaIds, decode_watermark
from cdc.avro.written_schema import self_contained, table_of
from cdc.avro_binary import bytes_at, long_at
from cdc.errors import Rejected
from cdc.event import Delivered, Record, TransactionMark
from cdc.exact_row import EXACT_HEADER, texts_of, with_texts
from cdc.fence import Watermark
from cdc.position import Position, TransactionId
from cdc.protocols import SchemaRegistry
from cdc.table import Table, TableId

_TORN = (ValueError, IndexError, KeyError, TypeError, EOFError, OverflowError, struct.error)
"""What reading bytes by a schema raises when they are not its writer's, fastavro's reading included."""


class _Reader(NamedTuple):
    """How records of a pair of schemas are read; ``program``: by compiled code, None where they cannot."""

    read: EnvelopeReader
    table: Table
    ours: bool
    program: Any


class EventDecoder:
    """See ``cdc.protocols.EventDecoder``. Not thread-safe.

    A row comes as its writer's bytes, except that a nullable column which the writer put as ``[T, "null"]`` gets the
    tag that it has in ``["null", T]``: so a ``Table`` alone says how to read its rows.
    A ``Table`` stands for a pair of schemas, of key and value: the same pair gives the same object. A record without
    key (a truncate) is of the table that its value's schema was met with last, or else of one without key.

    Position of Debezium's records, which have none of ours: generation 0, then with a transaction block the last
    commit's LSN from ``source.sequence`` (the event's own before the first commit) and ``total_order``; without
    one ``source.lsn`` and 0. Such positions order the events of a topic, and may repeat: no replay is told by them.
    ``compiled``: whether to use the accelerator, if there is one.
    """

    def __init__(self, *, prefix: str, registry: SchemaRegistry, compiled: bool = True) -> None:
        self._prefix = f"{topic_characters(prefix)}."
        self._native = native if compiled else None
        self._registry = registry
        self._readers: dict[bytes, _Reader] = {}
        self._collections: dict[str, str] = {}
        self._schemas: dict[int, Any] = {}
        self._tables: dict[bytes, Table] = {}
        self._keyed: dict[bytes, Table] = {}
        self._parsed: dict[int, Any] = {}
        self._our_marks: dict[bytes, bool] = {}

    # --- data ------------------------------------------------------------------------------------------------

    def data(self, records: Sequence[Record]) -> list[Delivered | Rejected | None]:
        """Aligned with ``records``: the event, None for a tombstone, or why it can never be read (not raised).

        Raises Unreachable when the registry is away and a schema is new.
        """
        if self._native is None:
            return self._by_python(records)
        events: list[Delivered | Rejected | None] = self._native.deliver(
            records, self._readers, self._collections, Delivered, Position, self._by_python
        )
        return events

    def _by_python(self, records: Sequence[Record]) -> list[Delivered | Rejected | None]:
        """What ``data`` gives: the reference for what is compiled."""
        events: list[Delivered | Rejected | None] = []
        append = events.append
        new = tuple.__new__
        collections = self._collections
        # Records of a batch come in runs of one topic: the reader of the last one is mostly the next one's.
        value_frame = key_frame = b"\xff"
        for record in records:
            topic, partition, key, value, headers, offset = record
            if value is None:
                append(None)
                continue
            try:
                if (
                    key is None
                    or not value.startswith(value_frame)
                    or not key.startswith(key_frame)
                ):
                    read, table, ours, _ = self._reader(key, value)
                    value_frame = value[:5]
                    key_frame = b"\xff" if key is None else key[:5]
                op, before, after, origin, order, sequence_at, lsn_at = read(key, value)
                generation, commit_lsn, xid = origin
                if generation:
                    position = new(Position, (generation, commit_lsn, order))
                else:
                    position = _foreign_position(value, order, sequence_at, lsn_at)
                unchanged: tuple[str, ...] = ()
                other_key = None
                if headers:
                    unchanged, other_key = self._from_headers(headers, key)
                    before, after = _with_texts(headers, before, after)
                if not ours and after is not None and (op == "u" or other_key is not None):
                    unchanged = unavailable_columns(table, after)
                collection = collections.get(topic) or self._collection(topic)
                size = len(value) if key is None else len(value) + len(key)
                append(
                    new(
                        Delivered,
                        (
                            collection,
                            table,
                            op,
                            position,
                            xid,
                            None if key is None else key[5:],
                            before,
                            after,
                            unchanged,
                            other_key,
                            topic,
                            partition,
                            offset,
                            size,
                        ),
                    )
                )
            except Rejected as rejected:
                append(_at(record, rejected.what, rejected.remedy))
            except _TORN as error:
                append(_at(record, f"{type(error).__name__}: {error}"))
        return events

    def key(self, record: Record) -> bytes | None:
        """The record's key without its frame; None when it has none, or one that its schema does not read."""
        if record.key is None:
            return None
        try:
            self._decoded(record.key)
        except (Rejected, *_TORN):
            return None
        return record.key[FRAME_SIZE:]

    def values(self, table: Table, row: bytes) -> Mapping[str, object]:
        """A row's values by column name. Rejected when the bytes are no such row."""
        try:
            return {**row_values(table, row), **texts_of(row)}
        except _TORN as error:
            raise Rejected(f"a row of {table.id} that cannot be read: {error}") from error

    def key_values(self, table: Table, key: bytes) -> Mapping[str, object]:
        """A key record's values by column name. Rejected when the bytes are no such key."""
        try:
            return key_record_values(table, key)
        except _TORN as error:
            raise Rejected(f"a key of {table.id} that cannot be read: {error}") from error

    def _collection(self, topic: str) -> str:
        if not topic.startswith(self._prefix):
            raise Rejected(
                f"the topic's name does not begin with {self._prefix}",
                "set topic.prefix to that of the source",
            )
        return self._collections.setdefault(topic, topic[len(self._prefix) :])

    def _reader(self, key: bytes | None, value: bytes) -> _Reader:
        frames = value[:FRAME_SIZE] + (b"" if key is None else key[:FRAME_SIZE])
        reader = self._readers.get(frames)
        if reader is None:
            reader = self._new_reader(key, value)
            self._readers[frames] = reader
        return reader

    def _new_reader(self, key: bytes | None, value: bytes) -> _Reader:
        envelope = self._schema(value)
        key_schema = None if key is None else self._schema(key)
        read = envelope_reader(key_schema, envelope)
        read(key, value)  # a torn record shall leave nothing behind
        source = self._decoded(value)["source"]
        table_id = TableId(source.get("schema") or "", source["table"])
        table = self._table(table_id, b"" if key is None else key[:FRAME_SIZE], value[:FRAME_SIZE])
        program = None if self._native is None else program_of(key_schema, envelope)
        return _Reader(read, table, is_ours(envelope), program)

    def _table(self, table_id: TableId, key_frame: bytes, value_frame: bytes) -> Table:
        """The one object for a pair of schemas, by their frames; the key's is empty for a record without one."""
        if not key_frame and (keyed := self._keyed.get(value_frame)) is not None:
            return keyed
        table = self._tables.get(value_frame + key_frame)
        if table is None:
            key_schema = self._schema(key_frame) if key_frame else None
            table = table_of(table_id, key_schema, self._schema(value_frame))
            self._tables[value_frame + key_frame] = table
        if key_frame:
            self._keyed[value_frame] = table
            self._readers.pop(value_frame, None)
        return table

    def _table_by_ids(self, table_id: TableId, ids: SchemaIds) -> Table:
        key_frame = b"" if ids.key is None else frame(ids.key)
        return self._table(table_id, key_frame, frame(ids.value))

    def _from_headers(
        self, headers: Headers, key: bytes | None
    ) -> tuple[tuple[str, ...], bytes | None]:
        unchanged: tuple[str, ...] = ()
        other_key: bytes | None = None
        for name, content in headers:
            if name == UNCHANGED_HEADER:
                names = json.loads(content)
                if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                    raise ValueError(f"header {UNCHANGED_HEADER} is no list of names")
                unchanged = tuple(names)
            elif name in (NEW_KEY_HEADER, OLD_KEY_HEADER) and key is not None:
                other_key = self._other_key(content, key)
        return unchanged, other_key

    def _other_key(self, content: bytes, key: bytes) -> bytes:
        """A key from a header, in the form of this record's: framed Avro, or the JSON of Connect's header converter."""
        frame = key[:FRAME_SIZE]
        if content[:FRAME_SIZE] == frame:
            return content[FRAME_SIZE:]
        raw = self._decoded(content) if content[:1] == b"\x00" else json.loads(content)
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self._fastavro_schema(key), raw, strict=True)
        return out.getvalue()

    # --- transactions and watermarks -------------------------------------------------------------------------

    def transaction(self, record: Record) -> TransactionMark:
        """A record of the transaction topic. Rejected when it is none.

        Collections are named as ``Delivered`` names them: in the characters of their topics.
        """
        value = record.value
        if value is None:
            raise _at(record, "a record without value")
        try:
            ended, named, found, commit_ms = (
                decode_mark(value, FRAME_SIZE) if self._is_our_mark(value) else self._mark(value)
            )
            transaction = TransactionId.parse(named)
        except _TORN as error:
            raise _at(record, f"no transaction's mark: {error}") from error
        counts = tuple((topic_characters(collection), count) for collection, count in found)
        return TransactionMark(
            ended, transaction.xid, transaction.commit_lsn, counts, record.offset, commit_ms
        )

    def watermark(self, record: Record) -> Watermark:
        """A record of the watermark topic. Rejected when it is none."""
        if record.value is None:
            raise _at(record, "a record without value")
        try:
            return decode_watermark(
                self._fastavro_schema(record.value), record.value[FRAME_SIZE:], self._table_by_ids
            )
        except _TORN as error:
            raise _at(record, f"no watermark: {error}") from error
        except fastavro.read.SchemaResolutionError as error:
            raise _at(record, f"no watermark: {error}") from error

    def _is_our_mark(self, value: bytes) -> bool:
        ours = self._our_marks.get(value[:FRAME_SIZE])
        if ours is None:
            ours = is_our_mark(self._registry.schema(_schema_id(value)))
            self._our_marks[value[:FRAME_SIZE]] = ours
        return ours

    def _mark(self, value: bytes) -> tuple[bool, str, list[tuple[str, int]], int]:
        """What ``decode_mark`` gives, by whatever schema wrote it."""
        raw = self._decoded(value)
        status = raw["status"]
        if status not in ("BEGIN", "END"):
            raise ValueError(f"status {status}")
        counts = [
            (each["data_collection"], int(each["event_count"]))
            for each in raw["data_collections"] or ()
            if each is not None
        ]
        return status == "END", raw["id"], counts, int(raw.get("ts_ms") or 0)

    # --- schemas ---------------------------------------------------------------------------------------------

    def _decoded(self, framed: bytes) -> Mapping[str, Any]:
        raw = decode(self._fastavro_schema(framed), framed[FRAME_SIZE:])
        if not isinstance(raw, dict):
            raise ValueError("not a record")
        return raw

    def _fastavro_schema(self, framed: bytes) -> Any:
        schema_id = _schema_id(framed)
        parsed = self._parsed.get(schema_id)
        if parsed is None:
            text = self._registry.schema(schema_id)
            try:
                parsed = fastavro.parse_schema(json.loads(text))
            except (*_TORN, fastavro.schema.SchemaParseException) as error:
                raise Rejected(f"schema {schema_id} cannot be used: {error}") from error
            self._parsed[schema_id] = parsed
        return parsed

    def _schema(self, framed: bytes) -> Any:
        schema_id = _schema_id(framed)
        schema = self._schemas.get(schema_id)
        if schema is None:
            schema = self._schemas[schema_id] = self_contained(self._registry.schema(schema_id))
        return schema


def _with_texts(
    headers: Headers, before: bytes | None, after: bytes | None
) -> tuple[bytes | None, bytes | None]:
    for name, content in headers:
        if name == EXACT_HEADER:
            return with_texts(content, "before", before), with_texts(content, "after", after)
    return before, after


def _schema_id(framed: bytes) -> int:
    if len(framed) < FRAME_SIZE or framed[0] != 0:
        raise Rejected(
            "not framed as Avro with a schema's id",
            "write the topic with the Avro converter and a schema registry",
        )
    return int.from_bytes(framed[1:FRAME_SIZE], "big")


def _foreign_position(value: bytes, order: int, sequence_at: int, lsn_at: int) -> Position:
    lsn = long_at(value, lsn_at)[0] if lsn_at >= 0 else 0
    if not order:
        return Position(0, lsn, 0)
    sequence = json.loads(bytes_at(value, sequence_at)[0]) if sequence_at >= 0 else [None]
    return Position(0, lsn if sequence[0] is None else int(sequence[0]), order)


def _at(record: Record, why: str, remedy: str = "") -> Rejected:
    return Rejected(
        f"record {record.offset} of {record.topic}[{record.partition}] cannot be read: {why}",
        remedy,
    )
