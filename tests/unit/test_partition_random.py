"""Random histories and rebalances: tasks come, go, sleep and die, and the replica ends as the source."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from cdc.errors import Fenced, Unreachable
from cdc.event import Record
from cdc.pipeline.apply import ApplySettings, ApplyStatus
from cdc.pipeline.partition_member import PartitionMember
from cdc.pipeline.partition_start import Beginnings
from cdc.pipeline.selection import Selection
from cdc.position import TopicPartition
from cdc.testing.memory_events import MemoryDecoder
from cdc.testing.memory_partitions import (
    MemoryGroup,
    MemoryGroupReader,
    MemoryPartitions,
    MemoryPartitionStore,
)
from tests.unit.apply_history import PREFIX, History, Source
from tests.unit.test_apply_random import held_state, same


class Honest(History):
    """Whatever a crashed capture has sent belongs to the history: partitions are applied without asking for an END."""

    def _torn(self, number: int) -> list[Record]:
        if number >= len(self.transactions):
            return []
        records = self._records(self.transactions[number])
        return records[: self.chance.randint(0, len(records) - 1)]


@dataclass
class Task:
    """One task's process: a member of the group from one trouble to the next."""

    world: World
    member: PartitionMember = field(init=False)
    reader: MemoryGroupReader = field(init=False)
    nap: int = 0

    def __post_init__(self) -> None:
        self.join()

    def join(self) -> None:
        world = self.world
        decoder = MemoryDecoder(world.source.events)
        selection = Selection(PREFIX)
        self.member = PartitionMember(
            "sink",
            selection,
            MemoryPartitionStore(world.held),
            decoder,
            Beginnings(selection, decoder, world.source.topics.reader),
            ApplySettings(commit_bytes=world.chance.choice([1000, 1 << 20])),
            ApplyStatus(),
            lambda _: None,
        )
        # Looks at barriers and fences are due at once: the steps of this test are its clock.
        self.member._barriers_due = self.member._fences_due = 0.0
        self.reader = world.group.join(self.member, world.chance.randrange(1 << 30))
        self.member.start(self.reader)
        world.group.share(world.chance)

    def step(self) -> None:
        if self.nap:
            self.nap -= 1
            return
        try:
            if self.reader.evicted:
                self.member._drain()  # it wakes up in the middle of a commit
            self.member._barriers_due = self.member._fences_due = 0.0
            self.member._turn()
        except (Fenced, Unreachable) as error:
            self.world.troubles[type(error).__name__] += 1
            self.leave()
            self.join()

    def leave(self) -> None:
        """Without a word to the group, which finds out at once."""
        self.member.close()
        self.world.group.evict(self.reader, told=False)

    def sleep(self) -> None:
        """The group takes its partitions away, and it does not know."""
        self.world.group.evict(self.reader, told=True)
        self.world.group.share(self.world.chance)
        self.nap = self.world.chance.randint(5, 40)


class World:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.source = Source(partitions=self.chance.choice([1, 2, 4]))
        self.source.create()
        self.held = MemoryPartitions()
        self.group = MemoryGroup(self.source.topics)
        self.troubles: Counter[str] = Counter()
        self.history = Honest(self.chance, self.source)
        self.tasks = [Task(self) for _ in range(self.chance.randint(1, 3))]

    def run(self) -> None:
        self.history.grow(self.chance.randint(5, 40), 30, 50)
        self.history.write_with_crashes(self.chance.randint(0, 3))
        for _ in range(self.chance.randint(50, 300)):
            self.chance.choice(self.tasks).step()
            self._disturb()
        for _ in range(3000):
            if self.done():
                break
            for task in self.tasks:
                task.step()
        assert self.done(), {tp: state.resume for tp, state in self.held.of("sink").states.items()}
        assert not self.held.of("sink").went_back, self.held.of("sink").went_back
        for task in self.tasks:
            task.member.close()

    def _disturb(self) -> None:
        roll = self.chance.random()
        task = self.chance.choice(self.tasks)
        if roll < 0.04:
            self.group.share(self.chance)
        elif roll < 0.06:
            task.leave()
            task.join()
        elif roll < 0.10:
            task.sleep()

    def done(self) -> bool:
        ends = self.source.topics.ends("p.s.items", "p.s.orders")
        return all(self._offset(tp) >= end for tp, end in ends.items() if end)

    def _offset(self, tp: TopicPartition) -> int:
        state = self.held.of("sink").states.get(tp)
        return state.resume.offset if state and state.resume else 0


@pytest.mark.parametrize("block", range(2))
def test_the_replica_ends_as_the_source(block: int) -> None:
    troubles: Counter[str] = Counter()
    for seed in range(block * 10, block * 10 + 10):
        print(f"seed {seed}")
        world = World(seed)
        world.run()
        troubles += world.troubles
        assert same(
            held_state(world.held.replica), world.history.states[max(world.history.states)]
        ), f"seed {seed}"
    assert troubles, "nothing was taken away from anybody"


@pytest.mark.matrix
@pytest.mark.parametrize("block", range(10))
def test_the_same_with_many_seeds(block: int) -> None:
    for seed in range(1000 + block * 50, 1000 + block * 50 + 50):
        print(f"seed {seed}")
        world = World(seed)
        world.run()
        assert same(
            held_state(world.held.replica), world.history.states[max(world.history.states)]
        ), f"seed {seed}"
