"""Compares what both sides gave: buckets, row hashes, and the texts of single rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cdc.protocols import Bucket, Hashes
from cdc.table import KeyRange
from cdc.verify.report import Kind


class Suspect(NamedTuple):
    """A range whose digests differ, and the more rows of both sides."""

    key_range: KeyRange
    rows: int


class Compared(NamedTuple):
    """``equal_rows`` are in buckets that are equal; ``rows`` in all (the source's)."""

    suspects: list[Suspect]
    equal_rows: int
    rows: int


def compare_buckets(
    after: bytes | None, source: Sequence[Bucket], replica: Sequence[Bucket]
) -> Compared:
    """Which of the runs differ. ``after`` is the key behind which the first run begins.

    Raises ValueError when the two sides did not digest the same runs.
    """
    if [bucket.upto for bucket in source] != [bucket.upto for bucket in replica]:
        raise ValueError("the two sides digested different runs")
    suspects: list[Suspect] = []
    equal = rows = 0
    for ours, theirs in zip(source, replica, strict=True):
        rows += ours.row_count
        if ours.row_count == theirs.row_count and ours.sums == theirs.sums:
            equal += ours.row_count
        else:
            most = max(ours.row_count, theirs.row_count)
            suspects.append(Suspect(KeyRange(after, ours.upto), most))
        after = ours.upto
    return Compared(suspects, equal, rows)


def merged(suspects: Iterable[Suspect], most_rows: int) -> list[Suspect]:
    """Neighbouring ranges joined, as long as a joined one has at most ``most_rows`` rows."""
    joined: list[Suspect] = []
    for suspect in suspects:
        if joined:
            last = joined[-1]
            rows = last.rows + suspect.rows
            adjoining = last.key_range.upto == suspect.key_range.after
            if adjoining and last.key_range.upto is not None and rows <= most_rows:
                whole = KeyRange(last.key_range.after, suspect.key_range.upto)
                joined[-1] = Suspect(whole, rows)
                continue
        joined.append(suspect)
    return joined


def differing_keys(source: Hashes, replica: Hashes) -> list[bytes]:
    """Keys that only one side has, or whose rows' hashes differ; the source's first, each side in its order."""
    theirs = dict(zip(replica.keys, replica.hashes, strict=True))
    ours = set(source.keys)
    found = [
        key
        for key, row_hash in zip(source.keys, source.hashes, strict=True)
        if theirs.get(key) != row_hash
    ]
    found.extend(key for key in replica.keys if key not in ours)
    return found


class RowDifference(NamedTuple):
    """How one row differs; the columns' texts, of all columns where a side has no row."""

    kind: Kind
    columns: tuple[str, ...]
    source: Mapping[str, str | None]
    replica: Mapping[str, str | None]


def compare_rows(
    source: Mapping[str, str | None] | None, replica: Mapping[str, str | None] | None
) -> RowDifference | None:
    """How the texts of two rows differ; None when they do not."""
    if source is None:
        return None if replica is None else RowDifference("extra", (), {}, replica)
    if replica is None:
        return RowDifference("missing", (), source, {})
    columns = tuple(name for name in source if source[name] != replica.get(name))
    if not columns:
        return None
    return RowDifference(
        "changed",
        columns,
        {name: source[name] for name in columns},
        {name: replica.get(name) for name in columns},
    )
