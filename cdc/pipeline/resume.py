"""Where capture goes on: slot and checkpoint held against each other before anything is read.

A slot that is ahead of the checkpoint, missing, lost, or of another history means changes that nobody would deliver:
that stops capture with an error, never with a gap. The intent to make a slot is stored before it is made, so that a
slot of ours without a checkpoint is recognised and made again.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, field, replace
from typing import Literal

from cdc.checkpoint import BackfillProgress, Identity, SourceCheckpoint
from cdc.errors import Refused
from cdc.protocols import CheckpointTopic, Source

log = logging.getLogger(__name__)

SnapshotMode = Literal["initial", "no_data"]


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
) -> SourceCheckpoint:
    """The checkpoint to start from, stored; every earlier capture of this connector is fenced by then.

    On return the slot exists and holds everything behind the checkpoint, the publication holds every selected table,
    and tables that joined wait for their first copy (under ``no_data`` they count as copied).
    Fenced when another owner has taken the place of this one since it was here last.
    """
    names = _Names(connector, slot, owner)
    identity = source.identify()
    checkpoint = checkpoints.claim(connector, owner.mark if owner.marked else "")
    if checkpoint is None or checkpoint.state == "creating":
        return _first_start(source, checkpoints, names, identity, checkpoint, snapshot_mode)
    _check_history(names, checkpoint, identity)
    _check_slot(source, names, checkpoint)
    checkpoint = _without_gaps(source, checkpoints, names, checkpoint)
    grew = source.prepare()
    return _with_tables(source, checkpoints, names, checkpoint, snapshot_mode, grew=grew)


def _first_start(
    source: Source,
    checkpoints: CheckpointTopic,
    names: _Names,
    identity: Identity,
    intent: SourceCheckpoint | None,
    snapshot_mode: SnapshotMode,
) -> SourceCheckpoint:
    source.prepare()
    if source.slot() is not None:
        if intent is None:
            raise Refused(
                f"replication slot {names.slot} exists, but connector {names.connector} has no checkpoint",
                "set another slot.name, or drop the slot if nothing else reads from it",
            )
        source.drop_slot()
    creating = SourceCheckpoint(identity, "creating", owner=names.owner.mark)
    checkpoints.save(names.connector, creating)
    names.owner.marked = True
    lsn = source.create_slot()
    log.info("made replication slot %s at %d", names.slot, lsn)
    checkpoint = replace(creating, state="streaming", lsn=lsn)
    return _with_tables(source, checkpoints, names, checkpoint, snapshot_mode, grew=True)


def _check_history(names: _Names, checkpoint: SourceCheckpoint, now: Identity) -> None:
    then = checkpoint.identity
    if now.system_id != then.system_id or now.database != then.database:
        raise Refused(
            f"connector {names.connector} followed database {then.database} of system {then.system_id}, "
            f"this is {now.database} of {now.system_id}",
            "point it at the same server, or deploy it under another name and topic.prefix",
        )
    if now.timeline != then.timeline:
        raise Refused(
            f"the source is on timeline {now.timeline}, connector {names.connector} followed timeline "
            f"{then.timeline}: commits that it wrote may have been lost in a failover",
            "deploy it under another name and topic.prefix, with a new replica",
        )


def _check_slot(source: Source, names: _Names, checkpoint: SourceCheckpoint) -> None:
    slot = source.slot()
    again = "deploy the connector under another name and topic.prefix, with a new replica"
    if slot is None:
        raise Refused(
            f"replication slot {names.slot} is gone: changes since {checkpoint.lsn} may be lost",
            again,
        )
    if slot.lost:
        raise Refused(f"replication slot {names.slot} is lost: {slot.lost}", again)
    if slot.confirmed > checkpoint.lsn:
        raise Refused(
            f"replication slot {names.slot} is at {slot.confirmed}, ahead of the checkpoint at "
            f"{checkpoint.lsn}: the changes between would be skipped",
            again,
        )


def _without_gaps(
    source: Source, checkpoints: CheckpointTopic, names: _Names, checkpoint: SourceCheckpoint
) -> SourceCheckpoint:
    """Tables that left the publication missed changes: they join anew. Stored before anything takes them in again."""
    left = source.missing() & checkpoint.backfills.keys()
    if not left:
        return checkpoint
    for table in sorted(left):
        log.warning(
            "%s was taken out of the publication, and its changes since then are not known: it joins anew"
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
    joined = BackfillProgress("waiting" if snapshot_mode == "initial" else "done")
    backfills = {t.id: checkpoint.backfills.get(t.id, joined) for t in source.tables()}
    signals = tuple(signal for signal in checkpoint.signals if signal.table in backfills)
    floor = checkpoint.floor
    if grew or backfills.keys() != checkpoint.backfills.keys():
        floor = max(floor, source.snapshot().xmax)
    checkpoint = replace(
        checkpoint,
        backfills=backfills,
        signals=signals,
        floor=floor,
        owner=names.owner.mark,
    )
    checkpoints.save(names.connector, checkpoint)
    names.owner.marked = True
    return checkpoint
