"""Partitions applied apart, in memory: a replica for several tasks, and the consumer group that shares topics among them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cdc.checkpoint import PartitionState, SinkCheckpoint, TableState
from cdc.errors import Fenced, Rejected
from cdc.event import Delivered, Record
from cdc.position import Position, TopicPartition
from cdc.protocols import GroupMember, Shape, TopicInfo
from cdc.testing.memory_store import MemoryReplica, MemoryStore, MemoryTransaction
from cdc.testing.memory_topics import MemoryTopics


@dataclass
class MemoryProgress:
    """What a replica holds of one sink: the state and epoch of each partition.

    ``went_back`` lists partitions that a commit brought back to a lower offset: somebody wrote who may not.
    """

    states: dict[TopicPartition, PartitionState] = field(default_factory=dict)
    epochs: Counter[TopicPartition] = field(default_factory=Counter)
    tables: dict[str, TableState] = field(default_factory=dict)
    arrived: dict[tuple[str, Position], set[int]] = field(default_factory=dict)
    truncated: set[tuple[str, Position]] = field(default_factory=set)
    went_back: list[TopicPartition] = field(default_factory=list)


@dataclass
class MemoryPartitions:
    """A replica of several tasks: rows, and what is held of each sink."""

    replica: MemoryReplica = field(default_factory=MemoryReplica)
    sinks: dict[str, MemoryProgress] = field(default_factory=dict)

    def of(self, sink: str) -> MemoryProgress:
        """What is held of this sink."""
        return self.sinks.setdefault(sink, MemoryProgress())


class MemoryPartitionStore:
    """`cdc.protocols.PartitionStore` on `MemoryPartitions`, as one task opens it."""

    atomic = True

    def __init__(self, partitions: MemoryPartitions) -> None:
        self.held = MemoryProgress()
        self.replica = partitions.replica
        self.rows = MemoryStore(partitions.replica)
        self._partitions = partitions
        self._epochs: dict[TopicPartition, int] = {}

    def claim(
        self,
        sink: str,
        source: str,
        partitions: Sequence[TopicPartition],
    ) -> Mapping[TopicPartition, PartitionState]:
        self.replica.reach()
        self.held = self._partitions.of(sink)
        self.rows.owner = (sink, source)
        with self.replica.lock:
            for tp in partitions:
                self.held.epochs[tp] += 1
                self._epochs[tp] = self.held.epochs[tp]
            return {tp: self.held.states.get(tp, PartitionState()) for tp in partitions}

    def release(self, partitions: Sequence[TopicPartition]) -> None:
        for tp in partitions:
            self._epochs.pop(tp, None)

    def begin(self) -> MemoryPartitionTransaction:
        self.replica.reach()
        return MemoryPartitionTransaction(self)

    def truncate(self, event: Delivered, partitions: int) -> bool:
        with self.replica.lock:
            self.check_epochs([TopicPartition(event.topic, event.partition)])
            place = (event.topic, event.position)
            arrived = self.held.arrived.setdefault(place, set())
            arrived.add(event.partition)
            if place not in self.held.truncated and len(arrived) == partitions:
                self.replica.rows.pop(event.collection, None)
                self.held.truncated.add(place)
            return place in self.held.truncated

    def offsets(self) -> Mapping[TopicPartition, int]:
        with self.replica.lock:
            return {
                tp: min([state.resume.offset, *state.withheld.values()])
                for tp, state in self.held.states.items()
                if state.resume is not None
            }

    def missing_rows(self) -> Mapping[str, int]:
        return self.rows.missing_rows()

    def mismatched_rows(self) -> Mapping[str, int]:
        return self.rows.mismatched_rows()

    def close(self) -> None:
        """Nothing is kept open."""

    def check_epochs(self, partitions: Iterable[TopicPartition]) -> None:
        """Raise Fenced when one of these has a newer owner, or none that this is."""
        for tp in partitions:
            if self._epochs.get(tp) != self.held.epochs[tp]:
                raise Fenced(f"{tp} has a newer owner")


class MemoryPartitionTransaction:
    """`cdc.protocols.StoreTransaction`: kept until ``commit``, which applies it at once."""

    def __init__(self, store: MemoryPartitionStore) -> None:
        self._store = store
        self._events: list[Delivered] = []
        self._shapes: list[Shape] = []
        self._checkpoint = SinkCheckpoint("", None)

    def apply(self, events: Sequence[Delivered]) -> None:
        self._events += events

    def attempt(self, events: Sequence[Delivered]) -> Rejected | None:
        tried = MemoryTransaction(self._store.rows)
        try:
            tried.apply([*self._events, *events])
        except Rejected as error:
            return error
        self.apply(events)
        return None

    def ensure(self, shape: Shape) -> None:
        self._shapes.append(shape)

    def save(self, checkpoint: SinkCheckpoint) -> None:
        self._checkpoint = checkpoint

    def commit(self) -> None:
        held, replica = self._store.held, self._store.replica
        replica.reach()
        with replica.lock:
            self._store.check_epochs(self._checkpoint.progress)
            rows = MemoryTransaction(self._store.rows)
            rows.apply(self._events)
            for shape in self._shapes:
                rows.ensure(shape)
            rows.put_in_place()
            held.tables |= self._checkpoint.tables
            replica.checkpoints[self._store.rows.owner] = SinkCheckpoint(
                "", None, tables=dict(held.tables)
            )
            for tp, progress in self._checkpoint.progress.items():
                before = held.states.get(tp, PartitionState())
                if before.resume is not None and progress.resume < before.resume:
                    held.went_back.append(tp)
                withheld = {
                    key: at for key, at in before.withheld.items() if key not in progress.settled
                }
                held.states[tp] = PartitionState(
                    progress.resume,
                    progress.position,
                    progress.cluster_id,
                    progress.since,
                    {**withheld, **progress.withheld},
                )

    def rollback(self) -> None:
        self._events = []


class MemoryGroup:
    """Shares the partitions of topics in memory among its members, cooperatively: what moves is first given up."""

    def __init__(self, topics: MemoryTopics) -> None:
        self.topics = topics
        self.members: list[MemoryGroupReader] = []
        self.owners: dict[TopicPartition, MemoryGroupReader] = {}

    def join(self, member: GroupMember, seed: int) -> MemoryGroupReader:
        """A new member; it is given something by the next `share`."""
        reader = MemoryGroupReader(self, member, seed)
        self.members.append(reader)
        return reader

    def share(self, chance: random.Random) -> None:
        """Decide anew, at random, who gets what. It happens in the members' reads."""
        for reader in self.members:
            reader.target = set()
        if self.members:
            for tp in sorted({tp for reader in self.members for tp in reader.wanted()}):
                chance.choice(self.members).target.add(tp)

    def evict(self, reader: MemoryGroupReader, *, told: bool) -> None:
        """The member is out, and its partitions are free; ``told``: it learns of it in its next read."""
        self.members = [one for one in self.members if one is not reader]
        reader.evicted = told
        self.owners = {tp: owner for tp, owner in self.owners.items() if owner is not reader}


class MemoryGroupReader:
    """`cdc.protocols.GroupReader` on a `MemoryGroup`."""

    def __init__(self, group: MemoryGroup, member: GroupMember, seed: int) -> None:
        self._group = group
        self._member = member
        self._reader = group.topics.reader(seed)
        self._subscribed: Sequence[str] = ()
        self._owned: set[TopicPartition] = set()
        self.target: set[TopicPartition] = set()
        self.evicted = False

    def wanted(self) -> Iterable[TopicPartition]:
        """The partitions of the topics that it subscribes."""
        return self._group.topics.ends(*self._subscribed)

    def subscribe(self, topics: Sequence[str]) -> None:
        self._subscribed = topics

    def read(self, timeout: float, limit: int = 10_000) -> Sequence[Record]:
        if self.evicted:
            self._member.lost(sorted(self._owned))
            return []
        gone = self._owned - self.target
        if gone:
            self._member.revoked(sorted(gone))
            self._let_go(gone)
        new = {tp for tp in self.target - self._owned if tp not in self._group.owners}
        if new:
            self._group.owners |= dict.fromkeys(new, self)
            self._owned |= new
            self._reader.assign(self._member.assigned(sorted(new)))
            self._reader.resume(sorted(new))
        return self._reader.read(timeout, limit)

    def pause(self, partition: TopicPartition) -> None:
        self._reader.pause([partition])

    def resume(self, partition: TopicPartition, offset: int) -> None:
        self._reader.assign({partition: offset})
        self._reader.resume([partition])

    def note(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Nobody looks."""

    def bounds(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, tuple[int, int]]:
        return self._reader.bounds(partitions)

    def topics(self) -> Mapping[str, TopicInfo]:
        return self._reader.topics()

    def cluster_id(self) -> str:
        return self._reader.cluster_id()

    def close(self) -> None:
        if not self.evicted and self in self._group.members:
            self._member.revoked(sorted(self._owned))
            self._let_go(set(self._owned))
            self._group.members.remove(self)

    def _let_go(self, partitions: set[TopicPartition]) -> None:
        self._owned -= partitions
        self._reader.pause(sorted(partitions))
        for tp in partitions:
            del self._group.owners[tp]
