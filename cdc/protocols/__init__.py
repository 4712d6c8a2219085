"""The seams: what a source, a store, a reader for verification, a registry and the topics must do.

Whoever writes a connector reads this package and `cdc.connector`, and nothing else of `cdc` but the words of floor 0.
Hot seams carry batches. Loops are plain and synchronous. Each docstring says what holds on return.
"""

from __future__ import annotations

from cdc.protocols.partitions import GroupMember, GroupReader, PartitionStore
from cdc.protocols.replica import Shape, Store, StoreTransaction
from cdc.protocols.source import MOST_READ_BYTES, FencedReader, Horizon, Slot, Source
from cdc.protocols.topics import (
    CheckpointTopic,
    DeadLetterTopic,
    EventDecoder,
    EventEncoder,
    RowDecoder,
    SchemaRegistry,
    TopicInfo,
    TopicReader,
    TopicWriter,
)
from cdc.protocols.verification import (
    Bucket,
    Hashes,
    RangeReader,
    ReplicaSide,
    ReplicaState,
    SourceSide,
)

__all__ = [
    "MOST_READ_BYTES",
    "Bucket",
    "CheckpointTopic",
    "DeadLetterTopic",
    "EventDecoder",
    "EventEncoder",
    "FencedReader",
    "GroupMember",
    "GroupReader",
    "Hashes",
    "Horizon",
    "PartitionStore",
    "RangeReader",
    "ReplicaSide",
    "ReplicaState",
    "RowDecoder",
    "SchemaRegistry",
    "Shape",
    "Slot",
    "Source",
    "SourceSide",
    "Store",
    "StoreTransaction",
    "TopicInfo",
    "TopicReader",
    "TopicWriter",
]
