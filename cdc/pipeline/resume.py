"""Where capture goes on: slot and checkpoint held against each other before anything is read.

A slot that is ahead of the checkpoint, missing, lost, or of another history means changes that nobody would deliver:
that stops capture with an error, never with a gap. The intent to make a slot is stored before it is made, so that a
slot of ours without a checkpoint is recognised and made again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from cdc.checkpoint import BackfillProgress, Identity, SourceCheckpoint
from cdc.errors import Refused
from cdc.protocols import CheckpointTopic, Source

log = logging.getLogger(__name__)

SnapshotMode = Literal["initial", "initial_only", "no_data", "always", "when_needed"]

ANEW = "cdc checkpoint rewind FILE --new-generation: it begins a new history, copied and then verified with --repair"
"""What to do where the log no longer holds what the checkpoint needs."""


@dataclass(slots=True)
class Owner:
    """A process as the owner of a source's checkpoint: the mark that it leaves there, and whether it has.

    To be kept over all attempts of one process: it tells an owner that comes back from one that takes over.
    """

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    marked: bool = False


@dataclass(frozen=True, slots=True)
class _Names:
    connector: str
    slot: str
    owner: Owner


def resume(
    source: Source,
    checkpoints: CheckpointTopic,
    *,
    connector: str,
    slot: str,
    snapshot_mode: SnapshotMode,
    owner: Owner,
    skipped: str = "none",
    written_since: Callable[[SourceCheckpoint], int] = lambda checkpoint: checkpoint.written,
    waits: Callable[[str], None] = lambda _: None,
) -> SourceCheckpoint:
    """The checkpoint to start from, stored; every earlier capture of this connector is fenced by then.

    ``skipped`` names the operations that are not sent. ``written_since`` finds the highest LSN of which anything
    stands on the topics (as `SourceCheckpoint.written` has it).
    ``waits`` is told what is waited for, again and again meanwhile, and may raise to end it.
    On return the slot exists and holds everything behind the checkpoint, the publication holds every selected table,
    and tables that joined wait for their first copy (under ``no_data`` they count as copied; under ``always`` all wait
    at each start of a process). Under ``when_needed`` and ``always`` a slot that lacks changes is made anew, and all is
    copied.
    A checkpoint of the state ``copied`` is returned as it is: nothing is left to do under ``initial_only``.
    Fenced when another owner has taken the place of this one since it was here last.
    """
    names = _Names(connector, slot, owner)
    identity = source.identify()
    checkpoint = checkpoints.claim(connector, owner.mark if owner.marked else "")
    if checkpoint is None or checkpoint.state == "creating":
        return _first_start(
            source, checkpoints, names, identity, checkpoint, snapshot_mode, skipped, waits
        )
    again = snapshot_mode == "always" and not owner.marked
    # Before this capture writes: from then on the offsets that it stores say nothing of what an earlier one had sent.
    checkpoint = replace(checkpoint, written=written_since(checkpoint))
    checkpoint = _on_same_history(source, names, checkpoint, identity)
    if checkpoint.state == "copied" and snapshot_mode == "initial_only":
        source.drop_slot()  # whoever came to this state may have died before it did
        return checkpoint
    try:
        _check_slot(source, names, checkpoint)
    except Refused as error:
        if snapshot_mode not in ("when_needed", "always"):
            raise
        intent = _intent_to_copy_anew(checkpoints, names, checkpoint, error)
        return _first_start(
            source, checkpoints, names, identity, intent, snapshot_mode, skipped, waits
        )
    checkpoint = _skipping(checkpoint, skipped, source)
    checkpoint = _without_gaps(source, checkpoints, names, checkpoint)
    grew = source.prepare()
    if again:
        checkpoint = replace(checkpoint, backfills={}, signals=())
    return _with_tables(source, checkpoints, names, checkpoint, snapshot_mode, grew=grew)


def check_history(
    source: Source, checkpoint: SourceCheckpoint | None, *, connector: str, slot: str
) -> None:
    """Refused for what `resume` would refuse, with nothing changed; a change of timeline is left to that."""
    names = _Names(connector, slot, Owner())
    if checkpoint is None or checkpoint.state == "creating":
        _check_new_slot(source, names, checkpoint)
        return
    _check_system(names, checkpoint.identity, source.identify())
    _check_slot(source, names, checkpoint)


def _intent_to_copy_anew(
    checkpoints: CheckpointTopic, names: _Names, checkpoint: SourceCheckpoint, why: Refused
) -> SourceCheckpoint:
    """The intent to make a slot in the place of one that lacks changes, stored. Positions only grow, so they go on."""
    log.warning(
        "%s: everything is copied anew, as snapshot.mode asks for; rows that were deleted meanwhile stay in"
        " replicas until cdc verify run --repair removes them",
        why.what,
    )
    intent = replace(checkpoint, state="creating", owner=names.owner.mark)
    checkpoints.save(names.connector, intent)
    names.owner.marked = True
    return intent


def _check_new_slot(source: Source, names: _Names, intent: SourceCheckpoint | None) -> bool:
    """Whether there is a slot, left by a start that was interrupted. Refused for one that is not ours."""
    if source.slot() is None:
        return False
    if intent is None:
        raise Refused(
            f"replication slot {names.slot} exists, but connector {names.connector} has no checkpoint",
            "set another slot.name, or drop the slot if nothing else reads from it",
        )
    return True


def _first_start(
    source: Source,
    checkpoints: CheckpointTopic,
    names: _Names,
    identity: Identity,
    intent: SourceCheckpoint | None,
    snapshot_mode: SnapshotMode,
    skipped: str,
    waits: Callable[[str], None],
) -> SourceCheckpoint:
    source.prepare()
    if _check_new_slot(source, names, intent):
        source.drop_slot()
    creating = SourceCheckpoint(
        identity,
        "creating",
        generation=intent.generation if intent else 1,
        partitions=intent.partitions if intent else {},
        topic_ids=intent.topic_ids if intent else {},
        marks=intent.marks if intent else {},
        owner=names.owner.mark,
        skipped=((0, skipped),),
    )
    checkpoints.save(names.connector, creating)
    names.owner.marked = True
    lsn = source.create_slot(waits)
    log.info("made replication slot %s at %d", names.slot, lsn)
    checkpoint = replace(creating, state="streaming", lsn=lsn)
    return _with_tables(source, checkpoints, names, checkpoint, snapshot_mode, grew=True)


def _on_same_history(
    source: Source,
    names: _Names,
    checkpoint: SourceCheckpoint,
    now: Identity,
) -> SourceCheckpoint:
    """The checkpoint as it holds on the server's timeline; Refused when that lacks what was captured.

    A standby that was promoted shares the log with its predecessor below the switch point. Nothing that we sent may
    stand at or behind it: it may be lost, and the new timeline uses the same LSNs for other commits.
    """
    then = checkpoint.identity
    _check_system(names, then, now)
    if now.timeline == then.timeline:
        return checkpoint
    if now.timeline < then.timeline:
        raise Refused(
            f"the source is on timeline {now.timeline}, before timeline {then.timeline} that connector "
            f"{names.connector} followed: it is an old primary, or was restored from a backup",
            f"point it at the present primary; or, if this one is meant: {ANEW}",
        )
    switch = source.switch_point(then.timeline)
    written = checkpoint.written
    if written >= switch:
        raise Refused(
            f"the source went over to timeline {now.timeline} at {switch}, and connector {names.connector} sent what "
            f"stood at {written} on timeline {then.timeline}: those commits are lost at the source",
            ANEW,
        )
    log.info("the source went over to timeline %d at %d; nothing was lost", now.timeline, switch)
    # The old primary's word that nothing came may reach further than its log that survived.
    return replace(checkpoint, identity=now, lsn=min(checkpoint.lsn, switch))


def _check_system(names: _Names, then: Identity, now: Identity) -> None:
    if now.system_id != then.system_id or now.database != then.database:
        raise Refused(
            f"connector {names.connector} followed database {then.database} of system {then.system_id}, "
            f"this is {now.database} of {now.system_id}",
            f"point it at the same server; or, if this one takes its place: {ANEW}",
        )


def _skipping(checkpoint: SourceCheckpoint, skipped: str, source: Source) -> SourceCheckpoint:
    """What is not sent is another from here on in the log: a replay of what stands before sends the same again."""
    known = checkpoint.skipped or ((0, skipped),)
    if known[-1][1] != skipped:
        known = (*known, (source.horizon().lsn, skipped))
    needed = max(since for since, _ in known if since <= checkpoint.lsn)
    return replace(checkpoint, skipped=tuple(entry for entry in known if entry[0] >= needed))


def _check_slot(source: Source, names: _Names, checkpoint: SourceCheckpoint) -> None:
    if checkpoint.state == "copied":
        raise Refused(
            f"connector {names.connector} copied its tables and dropped its slot (snapshot.mode=initial_only):"
            " changes since then are not known",
            f"set snapshot.mode=when_needed, which copies all anew; or {ANEW}",
        )
    slot = source.slot()
    if slot is None:
        raise Refused(
            f"replication slot {names.slot} is gone: changes since {checkpoint.lsn} may be lost",
            ANEW,
        )
    if slot.lost:
        raise Refused(f"replication slot {names.slot} is lost: {slot.lost}", ANEW)
    if slot.confirmed > checkpoint.lsn:
        raise Refused(
            f"replication slot {names.slot} is at {slot.confirmed}, ahead of the checkpoint at "
            f"{checkpoint.lsn}: the changes between would be skipped",
            ANEW,
        )


def _without_gaps(
    source: Source, checkpoints: CheckpointTopic, names: _Names, checkpoint: SourceCheckpoint
) -> SourceCheckpoint:
    """Tables that left the publication missed changes: they join anew. Stored before anything takes them in again."""
    marks = source.memberships()
    rejoined = {
        table
        for table, mark in checkpoint.members.items()
        if table in marks and marks[table] != mark
    }
    left = (source.missing() | rejoined) & checkpoint.backfills.keys()
    if not left:
        return checkpoint
    for table in sorted(left):
        log.warning(
            "%s was taken out of the publication, or made again, and its changes since then are not known: it joins anew"
            " (its copy removes no rows: cdc verify run --repair does)",
            table,
        )
    kept = {t: progress for t, progress in checkpoint.backfills.items() if t not in left}
    checkpoint = replace(checkpoint, backfills=kept, owner=names.owner.mark)
    checkpoints.save(names.connector, checkpoint)
    names.owner.marked = True
    return checkpoint


def _with_tables(
    source: Source,
    checkpoints: CheckpointTopic,
    names: _Names,
    checkpoint: SourceCheckpoint,
    snapshot_mode: SnapshotMode,
    *,
    grew: bool,
) -> SourceCheckpoint:
    """Tables that joined wait for a copy; those that left are forgotten: what they missed must be copied again."""
    # A new generation knows nothing of what the replicas hold.
    copies = snapshot_mode != "no_data" or checkpoint.generation > 1
    joined = BackfillProgress("waiting" if copies else "done")
    backfills = {
        t.id: checkpoint.backfills.get(t.id, joined if t.key else BackfillProgress("done"))
        for t in source.tables()
    }
    for table in sorted(checkpoint.backfills.keys() - backfills.keys()):
        log.warning(
            "%s is not selected any more: its events end here, and replicas keep the rows that they have",
            table,
        )
    marks = source.memberships()
    signals = tuple(signal for signal in checkpoint.signals if signal.table in backfills)
    memos = {table: checkpoint.memos[table] for table in backfills if table in checkpoint.memos}
    if memos.keys() != backfills.keys():
        memos = {**source.memos(), **memos}
    floor = checkpoint.floor
    if grew or backfills.keys() != checkpoint.backfills.keys():
        floor = max(floor, source.snapshot().xmax)
    checkpoint = replace(
        checkpoint,
        backfills=backfills,
        signals=signals,
        memos=memos,
        floor=floor,
        members={table: marks[table] for table in backfills if table in marks},
        owner=names.owner.mark,
    )
    checkpoints.save(names.connector, checkpoint)
    names.owner.marked = True
    return checkpoint
