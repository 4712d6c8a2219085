"""The record that a connector plug-in exports through the entry point group ``cdc.connectors``.

``connectors/<system>/__init__.py`` holds one ``CONNECTOR``; nothing else of a connector is known to ``cdc``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cdc.config import ConnectorConfig, Role, Setting
from cdc.findings import Finding
from cdc.protocols import (
    FencedReader,
    PartitionStore,
    ReplicaSide,
    RowDecoder,
    Source,
    SourceSide,
    Store,
)


@dataclass(frozen=True)
class ConnectorClass:
    """A value of ``connector.class``: its role, and the defaults that come with the name.

    ``defaults`` override those of the settings: under Debezium's class name a property left out has Debezium's value.
    ``warnings`` maps a property to what its default under this name loses.
    """

    name: str
    role: Role
    defaults: Mapping[str, Any]
    warnings: Mapping[str, str]


Check = Callable[[ConnectorConfig], Iterator[Finding]]
"""Looks at a system without changing it; raises a CdcError where no more can be looked at."""


class SequenceMove(NamedTuple):
    """What became of one sequence: ``moved``, ``ahead`` already, or ``missing`` in the replica.

    ``source_next`` is what the source hands out next, ``before`` and ``after`` what the replica did and does.
    """

    sequence: str
    replica_sequence: str
    state: Literal["moved", "ahead", "missing"]
    source_next: int
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Connector:
    """A system's plug-in. What a system cannot be is None.

    ``open_store`` is for ``apply.mode=transaction``, ``open_partition_store`` for ``partition``: a system without
    transactions has only the latter, and is given what reads rows, if it wants values. ``accelerators`` are its compiled modules, by full name.
    """

    name: str
    classes: Sequence[ConnectorClass]
    source_settings: Sequence[Setting]
    sink_settings: Sequence[Setting]
    open_source: Callable[[ConnectorConfig], Source] | None
    open_reader: Callable[[ConnectorConfig], FencedReader] | None
    open_store: Callable[[ConnectorConfig], Store] | None
    open_source_side: Callable[[ConnectorConfig], SourceSide] | None
    open_replica_side: Callable[[ConnectorConfig], ReplicaSide] | None
    open_partition_store: Callable[[ConnectorConfig, RowDecoder], PartitionStore] | None = None
    check_source: Check | None = None
    check_sink: Check | None = None
    accelerators: Sequence[str] = ()
    sync_sequences: (
        Callable[[ConnectorConfig, ConnectorConfig, int], Sequence[SequenceMove]] | None
    ) = None
