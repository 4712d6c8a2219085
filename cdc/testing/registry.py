"""A schema registry in memory, for tests of what stands above the seam."""

from __future__ import annotations

import json

from cdc.errors import Rejected, Unreachable


class MemoryRegistry:
    """`cdc.protocols.SchemaRegistry` without a server; checks no compatibility. ``away`` makes it unreachable."""

    def __init__(self) -> None:
        self.away = False
        self.subjects: dict[str, list[int]] = {}
        self._schemas: dict[int, str] = {}

    def register(self, subject: str, schema: str) -> int:
        """The id of the schema: the same text has the same id under every subject."""
        self._reach()
        same = (n for n, known in self._schemas.items() if json.loads(known) == json.loads(schema))
        schema_id = next(same, len(self._schemas) + 1)
        self._schemas[schema_id] = schema
        ids = self.subjects.setdefault(subject, [])
        if schema_id not in ids:
            ids.append(schema_id)
        return schema_id

    def put(self, schema_id: int, schema: str) -> None:
        """Hold a schema under an id that was given elsewhere."""
        self._schemas[schema_id] = schema

    def schema(self, schema_id: int) -> str:
        """The schema with this id; Rejected when there is none."""
        self._reach()
        try:
            return self._schemas[schema_id]
        except KeyError:
            raise Rejected(f"no schema {schema_id} in the registry") from None

    def _reach(self) -> None:
        if self.away:
            raise Unreachable("the schema registry is away")
