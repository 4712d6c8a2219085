"""A first copy under traffic ends equal to the source, whatever the order of commits, visibility, reads and fences."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cdc.checkpoint import BackfillProgress
from cdc.event import Begin, Change, Message
from cdc.fence import Fence, Signal, Watermark
from cdc.pipeline.admission import Admission
from cdc.pipeline.backfill import Backfill
from cdc.pipeline.fences import FenceJudge
from cdc.pipeline.reading import Job
from cdc.pipeline.rereads import OUR_OWN
from cdc.position import Position
from cdc.table import Column, KeyRange
from tests.unit.simulated_source import ORDERS, Row, SimulatedSource, key_of, parsed


class Run:
    """Capture and replica in miniature over a simulated source."""

    def __init__(self, seed: int) -> None:
        self.source = SimulatedSource(random.Random(seed), moving=False)
        for _ in range(30):
            self._source_step()
        self.taken = len(self.source.log)  # the slot is made here
        self.source.finish()  # old transactions end before the first read (the floor)
        self.taken = len(self.source.log)
        self.judge = FenceJudge(self.source.snapshot())
        self.backfill = Backfill(
            self.source, self.judge, 1, {ORDERS.id: BackfillProgress("waiting")}, (), lambda: True
        )
        self.replica: dict[bytes, Row] = {}
        self.positions: list[Position] = []
        self.marks: list[Watermark] = []
        self.admit(self.backfill.open(ORDERS.id, self.source.lsn))

    def _source_step(self) -> None:
        s = self.source
        s.random.choices([s.begin, s.write, s.commit, s.abort, s.show], weights=[3, 8, 4, 1, 4])[
            0
        ]()

    def step(self) -> None:
        choice = self.source.random.random()
        if choice < 0.6:
            self._source_step()
        elif choice < 0.7:
            self.backfill.step()
        elif choice < 0.8:
            self.source.emit_fence()
        elif choice < 0.85:
            self.judge.settle(self.source.horizon())
        else:
            self.follow()

    def follow(self) -> None:
        """Take one transaction or message of the log."""
        log = self.source.log
        if self.taken == len(log):
            return
        item = log[self.taken]
        self.taken += 1
        if isinstance(item, Message):
            self.judge.reached(item.lsn - 1)
            self.admit(self.backfill.at_fence(Fence.from_message(item.content), item.lsn))
            return
        assert isinstance(item, Begin)
        self.judge.begin(item.xid, item.commit_lsn)
        while isinstance(change := log[self.taken], Change):
            self.taken += 1
            self.judge.changed([change])
            self.apply(change, Position(1, item.commit_lsn, change.total_order))
        self.taken += 1
        self.judge.reached(self.positions[-1].commit_lsn if self.positions else 0)

    def admit(self, admission: Admission) -> None:
        self.marks.append(admission.watermark)
        for change in admission.changes:
            self.apply(change, Position(1, change.lsn, change.total_order))

    def apply(self, change: Change, position: Position) -> None:
        assert change.key is not None
        self.positions.append(position)
        if change.after is None:
            self.replica.pop(change.key, None)
        elif not change.unchanged:
            self.replica[change.key] = parsed(change.after)
        elif change.key in self.replica:
            self.replica[change.key] = (parsed(change.after)[0], self.replica[change.key][1])

    def end(self) -> None:
        self.source.finish()
        for _ in range(1000):
            self.backfill.step()
            self.source.emit_fence()
            self.judge.settle(self.source.horizon())
            self.follow()
            if not self.backfill.busy and self.taken == len(self.source.log):
                return
        raise AssertionError("the backfill never ends")

    def expected(self) -> dict[bytes, Row]:
        return {key_of(key): row for key, row in self.source.visible.items()}


def seeds() -> Iterator[int]:
    base = random.SystemRandom().randrange(1 << 30)
    return iter(range(base, base + 300))


def test_copy_under_traffic_equals_the_source() -> None:
    voids = again = 0
    for seed in seeds():
        run = Run(seed)
        for _ in range(run.source.random.randrange(300)):
            run.step()
        run.end()
        assert run.replica == run.expected(), f"seed {seed}"
        assert run.positions == sorted(set(run.positions)), (
            f"seed {seed}: positions repeat or go back"
        )
        assert run.marks[-1].phase == "final" or not run.backfill.busy, f"seed {seed}"
        assert [mark.shape for mark in run.marks if mark.phase == "final"] == [ORDERS], (
            f"seed {seed}"
        )
        voids += sum(bool(mark.void) for mark in run.marks)
        again += sum(mark.fence.startswith("again-") for mark in run.marks)
    assert voids, "no run met a transaction in limbo: the simulation proves nothing of it"
    assert again, "no run had to read a key again: the simulation proves nothing of it"


@pytest.mark.parametrize("rule", ["the judge sees everything", "touched keys are admitted"])
def test_the_simulation_fails_without_the_rule(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if rule == "the judge sees everything":
        monkeypatch.setattr("cdc.fence.Snapshot.sees", lambda *_: True)
    else:
        monkeypatch.setattr("cdc.pipeline.copies._READS_AHEAD", 2)
        judge = FenceJudge.judge

        def without_keys(self: FenceJudge, fence: Fence, read_from: int | None = None) -> object:
            judgement = judge(self, fence, read_from)
            return type(judgement)(judgement.void)

        monkeypatch.setattr(FenceJudge, "judge", without_keys)

    def differs(seed: int) -> bool:
        run = Run(seed)
        for _ in range(run.source.random.randrange(300)):
            run.step()
        run.end()
        return run.replica != run.expected()

    assert any(differs(seed) for seed in seeds())


def test_repair_sends_what_is_there_and_deletes_what_is_not() -> None:
    run = Run(7)
    run.end()
    extra, missing = key_of(900), next(iter(run.replica))
    run.replica[extra] = (1, 1)
    del run.replica[missing]
    run.backfill.take(Signal("x", "repair", "p", ORDERS.id, (extra, missing)))
    run.end()
    assert run.replica == run.expected()
    assert run.marks[-1].fence == "x"


def test_a_copy_begins_again_when_the_key_of_its_table_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(3)
    run.source.visible = {number: (number, number) for number in range(9)}
    run.backfill.step()
    run.source.emit_fence()
    run.follow()
    renamed = replace(ORDERS, columns=(Column("number", "int", False), *ORDERS.columns[1:]))
    monkeypatch.setattr(
        "tests.unit.simulated_source.ORDERS", replace(renamed, key=("number",), id=ORDERS.id)
    )
    for _ in range(3):
        run.backfill.step()
    (amendment,) = run.backfill.amendments()
    assert amendment.progress[ORDERS.id].remaining == (KeyRange(),)
    run.end()
    assert run.replica == run.expected()


def test_rows_to_be_read_again_do_not_keep_a_copy_from_its_end() -> None:
    """A table whose keys keep changing asks for more rows than are read one by one."""
    run = Run(3)
    keys = list(run.source.visible)
    for number in range(4000):
        if any(mark.phase == "final" for mark in run.marks):
            break
        if number % 2:
            key = key_of(run.source.random.choice(keys))
            run.backfill.take(Signal(f"moved-{number}", "repair", OUR_OWN, ORDERS.id, (key,)))
        run.step()
    assert any(mark.phase == "final" for mark in run.marks)
    run.end()
    assert run.replica == run.expected()


def test_keys_that_would_not_fit_into_a_checkpoint_become_a_copy() -> None:
    """One statement may give every row of a table a new key."""
    run = Run(3)
    run.end()
    keys = [b"%030d" % number for number in range(40_000)]
    first = run.backfill.read_again("moved-1", ORDERS.id, keys[:100])
    assert [key for part in first for key in part.keys] == keys[:100]
    waiting = Signal("wanted", "repair", "p", ORDERS.id, (key_of(1),))
    run.backfill.take(waiting)
    run.backfill.step()
    assert run.backfill.read_again("moved-2", ORDERS.id, keys) == ()
    (amendment,) = run.backfill.amendments()
    assert amendment.progress[ORDERS.id].state == "running"
    assert amendment.finished == {"moved-1"}, "what somebody waits for by name stays"
    run.end()
    assert run.replica == run.expected()
    assert "wanted" in {mark.fence for mark in run.marks}
    assert run.marks[-1].phase == "final" or any(m.phase == "final" for m in run.marks)


def test_a_copy_is_divided_among_the_readers_and_goes_on_in_each_part() -> None:
    run = Run(5)
    run.source.visible = {number: (number, number) for number in range(12)}
    stretches = set()
    for _ in range(200):
        run.backfill.step()
        run.source.emit_fence()
        run.follow()
        progress = run.backfill._progress[ORDERS.id]
        stretches.add(len(progress.remaining))
        if progress.state == "done":
            break
        if len(progress.remaining) == 2:  # a restart goes on with what remains, in both parts
            run.backfill = Backfill(
                run.source, run.judge, 1, {ORDERS.id: progress}, (), lambda: True
            )
            run.source.reading.clear()
    assert 2 in stretches
    run.end()
    assert run.replica == run.expected()


def test_a_fence_without_its_read_is_void() -> None:
    run = Run(1)
    fence = Fence("unknown", "backfill", "p", ORDERS.id, run.source.snapshot())
    admission = run.backfill.at_fence(fence, run.source.lsn)
    assert admission.watermark.void
    assert not admission.changes
    assert admission.withdrawn, "an earlier capture may have sent a part of its rows"


def test_what_was_noted_as_complete_is_not_withdrawn() -> None:
    run = Run(1)
    backfill = Backfill(run.source, run.judge, 1, {}, (), lambda: True, admitted=[800])
    fence = Fence("orders#earlier.1", "backfill", "p", ORDERS.id, run.source.snapshot())
    assert not backfill.at_fence(fence, 800).withdrawn
    assert backfill.at_fence(fence, 808).withdrawn


def test_no_range_is_larger_than_it_may_be() -> None:
    run = Run(1)
    asked: list[int] = []
    give = run.source.give

    def noted(job: Job) -> None:
        asked.append(job.limit)
        give(job)

    run.source.give = noted  # type: ignore[method-assign]
    waiting = {ORDERS.id: BackfillProgress("waiting")}
    run.backfill = Backfill(run.source, run.judge, 1, waiting, (), lambda: True, most_rows=2)
    run.end()
    assert asked
    assert max(asked) <= 2
