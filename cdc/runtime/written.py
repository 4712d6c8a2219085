"""How far a source's topics reach: what decides, where the source changes its timeline, whether commits were lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from cdc.checkpoint import SourceCheckpoint
from cdc.errors import Unreachable
from cdc.event import Record
from cdc.kafka.client import Cluster
from cdc.kafka.reader import KafkaTopicReader
from cdc.position import TopicPartition
from cdc.protocols import EventDecoder

_PATIENCE = 60.0
_BUDGET = 16 << 20


def written_since(
    cluster: Cluster, decoder: EventDecoder, prefix: str, checkpoint: SourceCheckpoint
) -> int:
    """The highest LSN of a commit, or one below that of a fence, of which a mark or watermark stands on the topics.

    Each transaction begins with a mark, and the checkpoint says up to where the marks were known when it was stored:
    only what came later is read. Of a topic that is gone nothing is: whoever pins the topics refuses that.
    """
    tells: dict[str, Callable[[Record], int]] = {
        f"{prefix}.transaction": lambda record: decoder.transaction(record).commit_lsn,
        f"{prefix}.watermark": lambda record: decoder.watermark(record).lsn - 1,
    }
    highest = checkpoint.written
    settings = {"isolation.level": "read_uncommitted"}
    with closing(KafkaTopicReader(cluster, budget_bytes=_BUDGET, overrides=settings)) as reader:
        there = reader.topics()
        bounds = reader.bounds([TopicPartition(topic, 0) for topic in tells if topic in there])
        begin = {
            at: max(first, checkpoint.marks.get(at.topic, 0)) for at, (first, _) in bounds.items()
        }
        left = {at for at, (_, end) in bounds.items() if begin[at] < end}
        reader.assign({at: begin[at] for at in left})
        deadline = time.monotonic() + _PATIENCE
        while left:
            for record in reader.read(0.5):
                highest = max(highest, tells[record.topic](record))
            left = {at for at in left if reader.position(at) < bounds[at][1]}
            if left and time.monotonic() > deadline:
                raise Unreachable(
                    f"{sorted(left)[0]} cannot be read to its end", "it is tried again"
                )
    return highest
