"""Where capture goes on: slot, publication and checkpoint held against each other, whatever the last start came to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from cdc.checkpoint import BackfillProgress, Identity, SourceCheckpoint
from cdc.errors import Fenced, Refused, Unreachable
from cdc.fence import Signal
from cdc.pipeline.resume import Owner, SnapshotMode, resume
from cdc.protocols import Slot
from cdc.testing.memory_checkpoints import MemoryCheckpoints, MemoryCheckpointTopic
from tests.unit.simulated_source import GONE, ORDERS, SimulatedSource

OURS = Identity("1", 1, "db")
STORED = SourceCheckpoint(
    OURS,
    "streaming",
    lsn=800,
    backfills={ORDERS.id: BackfillProgress("done"), GONE: BackfillProgress("done")},
    floor=7,
    skipped=((0, "none"),),
)


class Server(SimulatedSource):
    """A server that can be interrupted while it makes a slot, and say other things of itself."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.identity = OURS
        self.dies_making_a_slot = ""
        self.dies_preparing = ""
        self.lost = ""
        self.slots_made = 0
        self.switch = 0

    def identify(self) -> Identity:
        return self.identity

    def switch_point(self, timeline: int) -> int:
        return self.switch

    def slot(self) -> Slot | None:
        found = super().slot()
        return found and found._replace(lost=self.lost)

    def prepare(self) -> bool:
        changed = super().prepare()
        if self.dies_preparing:
            raise Unreachable(self.dies_preparing)
        return changed

    def create_slot(self, waits: Callable[[str], None] = lambda _: None) -> int:
        if self.dies_making_a_slot == "before":
            raise Unreachable("the server is away")
        lsn = super().create_slot()
        self.slots_made += 1
        if self.dies_making_a_slot == "after":
            raise Unreachable("the server is away")
        return lsn


def start(
    server: Server,
    checkpoints: MemoryCheckpoints,
    mode: SnapshotMode = "initial",
    owner: Owner | None = None,
) -> SourceCheckpoint:
    topic = MemoryCheckpointTopic(checkpoints)
    return resume(
        server, topic, connector="c", slot="s", snapshot_mode=mode, owner=owner or Owner()
    )


def stored(checkpoint: SourceCheckpoint = STORED) -> MemoryCheckpoints:
    return MemoryCheckpoints({"c": checkpoint.to_json()})


def streaming() -> Server:
    server = Server()
    server.lsn = 1600
    server.slot_at = 800
    return server


def test_a_first_start_makes_the_slot_and_every_table_waits_for_its_copy() -> None:
    server, checkpoints = Server(), MemoryCheckpoints()
    server.begin()
    found = start(server, checkpoints)
    assert (found.state, found.lsn) == ("streaming", server.slot_at)
    assert found.backfills[ORDERS.id].state == "waiting"
    assert found.floor == server.snapshot().xmax, "transactions that run now are not to be trusted"
    assert checkpoints.checkpoint("c") == found


def test_without_copies_tables_count_as_copied() -> None:
    found = start(Server(), MemoryCheckpoints(), "no_data")
    assert {progress.state for progress in found.backfills.values()} == {"done"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_start_that_died_making_the_slot_is_made_again(when: str) -> None:
    server, checkpoints = Server(), MemoryCheckpoints()
    server.dies_making_a_slot = when
    with pytest.raises(Unreachable):
        start(server, checkpoints)
    server.dies_making_a_slot = ""
    server.lsn += 800  # nobody kept what was written meanwhile
    assert start(server, checkpoints).lsn == server.lsn == server.slot_at


def test_a_slot_without_a_checkpoint_is_somebody_elses() -> None:
    server = streaming()
    with pytest.raises(Refused, match="has no checkpoint"):
        start(server, MemoryCheckpoints())
    assert server.slot_at == 800


@pytest.mark.parametrize(
    ("identity", "what"),
    [
        (Identity("2", 1, "db"), "system"),
        (Identity("1", 1, "other"), "this is other"),
        (Identity("1", 0, "db"), "timeline 0"),
    ],
)
def test_another_history_is_refused(identity: Identity, what: str) -> None:
    server = streaming()
    server.identity = identity
    with pytest.raises(Refused, match=what):
        start(server, stored())


@pytest.mark.parametrize(
    ("switch", "written", "goes_on_at"),
    [
        (900, 792, 800),  # the log went on behind everything that we know
        (800, 792, 800),
        (792, 784, 792),  # a keepalive of the old primary reached further than what survived
        (792, 792, None),  # the commit at the switch point is not the one that was sent
        (700, 792, None),
    ],
)
def test_a_promoted_standby_goes_on_where_nothing_that_was_sent_is_lost(
    switch: int, written: int, goes_on_at: int | None
) -> None:
    server, checkpoints = streaming(), stored()
    server.identity = Identity("1", 2, "db")
    server.slot_at = min(700, switch)
    server.switch = switch

    def go_on() -> SourceCheckpoint:
        return resume(
            server,
            MemoryCheckpointTopic(checkpoints),
            connector="c",
            slot="s",
            snapshot_mode="initial",
            owner=Owner(),
            written_since=lambda _: written,
        )

    if goes_on_at is None:
        with pytest.raises(Refused, match=f"timeline 2 at {switch}") as refused:
            go_on()
        assert "--new-generation" in refused.value.remedy
        assert checkpoints.checkpoint("c") == STORED, "refused again at the next start"
    else:
        found = go_on()
        assert (found.lsn, found.generation, found.identity.timeline) == (goes_on_at, 1, 2)
        assert checkpoints.checkpoint("c") == found


def test_other_operations_are_skipped_from_where_the_log_is_now() -> None:
    """A replay must send what was sent before, or the counts of END would be of other events."""
    server, checkpoints = streaming(), stored()
    found = resume(
        server,
        MemoryCheckpointTopic(checkpoints),
        connector="c",
        slot="s",
        snapshot_mode="initial",
        owner=Owner(),
        skipped="t",
    )
    assert found.skipped == ((0, "none"), (1600, "t"))
    assert (found.skips(1592), found.skips(1600)) == ("none", "t")


def test_a_new_generation_makes_the_slot_again_and_copies_everything() -> None:
    server = streaming()
    server.identity = Identity("2", 1, "db")
    intent = SourceCheckpoint(Identity("1", 1, "db"), "creating", generation=2)
    found = start(server, stored(intent), "no_data")
    assert (found.generation, found.state, found.identity) == (2, "streaming", server.identity)
    assert server.slots_made == 1
    assert {progress.state for progress in found.backfills.values()} == {"waiting"}


def test_a_slot_that_lacks_changes_is_refused() -> None:
    server = streaming()
    server.slot_at = None
    with pytest.raises(Refused, match="is gone"):
        start(server, stored())
    server.slot_at, server.lost = 800, "its log was removed"
    with pytest.raises(Refused, match="its log was removed"):
        start(server, stored())
    server.slot_at, server.lost = 808, ""
    with pytest.raises(Refused, match="ahead of the checkpoint"):
        start(server, stored())
    server.slot_at = 792  # a save came through and its confirmation did not
    assert start(server, stored()).lsn == 800


def test_what_is_stored_goes_on_as_it_is() -> None:
    found = start(streaming(), stored())
    assert replace(found, owner="") == STORED


def test_a_table_that_joins_waits_and_one_that_leaves_takes_its_signals_along() -> None:
    signal = Signal("x", "repair", "p", ORDERS.id._replace(name="left"), (b"1",))
    backfills = {ORDERS.id: BackfillProgress("done"), signal.table: BackfillProgress("running")}
    found = start(streaming(), stored(replace(STORED, backfills=backfills, signals=(signal,))))
    assert found.backfills == {
        ORDERS.id: BackfillProgress("done"),
        GONE: BackfillProgress("waiting"),
    }
    assert found.signals == ()
    assert found.floor > STORED.floor


@pytest.mark.parametrize("dies", ["", "it died before it noted so"])
def test_a_table_that_left_the_publication_and_came_back_is_copied_anew(dies: str) -> None:
    server, checkpoints = streaming(), stored()
    server.unpublished = {ORDERS.id}
    if dies:
        server.dies_preparing = dies
        with pytest.raises(Unreachable):
            start(server, checkpoints)
        server.dies_preparing = ""
    found = start(server, checkpoints)
    assert found.backfills[ORDERS.id].state == "waiting"
    assert found.backfills[GONE].state == "done"
    assert found.floor > STORED.floor


def test_a_zombie_is_fenced() -> None:
    server, checkpoints = streaming(), stored()
    old = MemoryCheckpointTopic(checkpoints)
    old.claim("c")
    start(server, checkpoints)
    with pytest.raises(Fenced):
        old.save("c", STORED)


def test_an_owner_that_was_replaced_does_not_take_its_place_back() -> None:
    server, checkpoints, replaced = streaming(), stored(), Owner()
    start(server, checkpoints, owner=replaced)
    start(server, checkpoints, owner=replaced)  # its own next attempt
    start(server, checkpoints)
    with pytest.raises(Fenced):
        start(server, checkpoints, owner=replaced)
