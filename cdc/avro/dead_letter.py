"""Dead letters as records of ``<prefix>.deadletter``: ``schemas/dead_letter.avsc``, by fastavro.

The record that could not be applied stands inside byte for byte, so that it can be sent again as it was.
"""

from __future__ import annotations

import io
import json
from functools import cache
from typing import Any

import fastavro

from cdc.avro.framing import FRAME_SIZE, frame
from cdc.avro.packaged import packaged_schema, schema_text
from cdc.errors import CdcError, Rejected
from cdc.event import DeadLetter, Record
from cdc.position import Position
from cdc.protocols import SchemaRegistry

_NAME = "dead_letter"


@cache
def _schema() -> Any:
    return fastavro.parse_schema(packaged_schema(_NAME))


class DeadLetters:
    """Writes and reads dead letters of one topic. Errors: Unreachable when the registry is away."""

    def __init__(self, *, topic: str, registry: SchemaRegistry) -> None:
        self.topic = topic
        self._registry = registry
        self._frame: bytes | None = None

    def record(self, letter: DeadLetter) -> Record:
        """The record for a letter: partition 0, the key of the record that could not be applied."""
        if self._frame is None:
            text = schema_text(packaged_schema(_NAME))
            self._frame = frame(self._registry.register(f"{self.topic}-value", text))
        out = io.BytesIO()
        record, position = letter.record, letter.position
        fastavro.schemaless_writer(
            out,
            _schema(),
            {
                "sink": letter.sink,
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "key": record.key,
                "value": record.value,
                "headers": [{"name": name, "value": content} for name, content in record.headers],
                "position": None if position is None else position._asdict(),
                "kind": letter.kind,
                "message": letter.message,
                "remedy": letter.remedy,
                "at_ms": letter.at_ms,
            },
        )
        return Record(self.topic, 0, record.key, self._frame + out.getvalue())

    def letter(self, record: Record) -> DeadLetter:
        """What a record of the topic says. Rejected when it is no dead letter."""
        try:
            return self._letter(record)
        except CdcError:
            raise
        except Exception as error:
            raise Rejected(
                f"record {record.offset} of {record.topic} is no dead letter: {error}"
            ) from error

    def _letter(self, record: Record) -> DeadLetter:
        framed = record.value or b""
        if framed[:1] != b"\x00":
            raise ValueError("not framed")
        writer = json.loads(self._registry.schema(int.from_bytes(framed[1:FRAME_SIZE], "big")))
        data = io.BytesIO(framed[FRAME_SIZE:])
        raw: Any = fastavro.schemaless_reader(data, fastavro.parse_schema(writer), _schema())
        return DeadLetter(
            sink=raw["sink"],
            record=Record(
                raw["topic"],
                raw["partition"],
                raw["key"],
                raw["value"],
                tuple((header["name"], header["value"]) for header in raw["headers"]),
                raw["offset"],
            ),
            position=None if raw["position"] is None else Position(**raw["position"]),
            kind=raw["kind"],
            message=raw["message"],
            remedy=raw["remedy"],
            at_ms=raw["at_ms"],
        )
