"""What ``apply.mode=partition`` asks of a store and of a consumer group: partitions that are applied apart.

Tasks share the partitions of a sink's topics. Order holds within a partition, so for each key; a partition's progress
stands in the replica, under an epoch of its own, and that alone decides who may write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cdc.checkpoint import PartitionState
from cdc.event import Delivered, Record
from cdc.position import TopicPartition
from cdc.protocols.replica import StoreTransaction
from cdc.protocols.topics import TopicInfo


class PartitionStore(Protocol):
    """One replica, as one of several tasks sees it."""

    atomic: bool
    """Whether rows appear together with the progress that belongs to them.

    A store that cannot promise this keeps the position beside each value and guards every write with it: what is
    applied again after a crash changes nothing. Such a store needs positions, which only topics of ours carry.
    """

    def claim(
        self, sink: str, source: str, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, PartitionState]:
        """Become the only writer of these partitions as well: raise the epoch of each, end a former owner that hangs.

        Returns what the replica holds of each.
        """
        ...

    def release(self, partitions: Sequence[TopicPartition]) -> None:
        """Give these up; what was committed stays. The next owner need not end this one's session."""
        ...

    def begin(self) -> StoreTransaction:
        """Begin to apply events of claimed partitions, in order within each; one at a time.

        ``save`` takes ``progress`` and ``tables``. ``commit`` raises Fenced when one of these partitions has a newer
        owner: then nothing of it took effect, or (without ``atomic``) nothing that the newer owner would not do too.
        """
        ...

    def truncate(self, event: Delivered, partitions: int) -> bool:
        """One partition has come to a TRUNCATE, which stands in all ``partitions`` of its topic at one position.

        True once it has taken effect behind everything before it and in front of everything after it: the partition
        may go on. False: the others are not there yet; ask again. What came before it in this partition is committed.
        """
        ...

    def offsets(self) -> Mapping[TopicPartition, int]:
        """Up to which offset the replica holds each partition of this sink, whoever owns it.

        Of one that withholds rows, the offset of the first of these.
        """
        ...

    def missing_rows(self) -> Mapping[str, int]:
        """Per collection, how many updates and deletes since the claim met no row in a live table."""
        ...

    def mismatched_rows(self) -> Mapping[str, int]:
        """Per collection, how many since the claim met a row other than their whole old image."""
        ...

    def close(self) -> None:
        """Safe to repeat."""
        ...


class GroupMember(Protocol):
    """Told by a `GroupReader`, in the middle of a read, what the group gives to this member and takes from it."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """These are this member's from now on; the answer says at which offset each is read."""
        ...

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """These are another member's as soon as this returns."""
        ...

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """These have been another member's for a while: nothing may be written for them any more."""
        ...


class GroupReader(Protocol):
    """Reads what a consumer group gives to this member, from offsets that the member names."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Take part in sharing these topics; other topics than before cause a rebalance."""
        ...

    def read(self, timeout: float, limit: int = 10_000) -> Sequence[Record]:
        """What arrived, in order within a partition; calls the member meanwhile, and raises what it raised.

        May hold records of partitions that were taken away, or given anew, during this very call.
        """
        ...

    def pause(self, partition: TopicPartition) -> None:
        """Deliver nothing of this partition until ``resume``."""
        ...

    def resume(self, partition: TopicPartition, offset: int) -> None:
        """Deliver this partition again, from this offset on."""
        ...

    def note(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the group how far this member is. For graphs of lag only: nothing is ever resumed from there."""
        ...

    def bounds(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        """First offset still there, and end offset, of each, asked of the brokers."""
        ...

    def topics(self) -> Mapping[str, TopicInfo]:
        """All topics of the cluster that are not internal."""
        ...

    def cluster_id(self) -> str:
        """The cluster's identity."""
        ...

    def close(self) -> None:
        """Leave the group: what is assigned is revoked. Safe to repeat."""
        ...


__all__ = ["GroupMember", "GroupReader", "PartitionStore"]
