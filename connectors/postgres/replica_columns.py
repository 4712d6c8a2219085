"""How the columns of a replica's table follow those of the source's: which are new, renamed, gone, or others. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from cdc.table import Column
from connectors.postgres.replica_memory import RememberedColumn


@dataclass(frozen=True, slots=True)
class ColumnChanges:
    """``renamed`` maps old names to new ones. ``gone`` are the source's no more; ``replaced`` are other columns now.

    ``added`` are to be made; those that are replaced are not among them.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    replaced: tuple[Column, ...] = ()
    added: tuple[Column, ...] = ()


def column_changes(
    wanted: Collection[Column], found: Mapping[str, int], remembered: Mapping[str, RememberedColumn]
) -> ColumnChanges:
    """Compare the row schema's columns with the replica's (``found``: own number by name), as it remembers them.

    Where numbers are not known, or belong to another table of the same name, names alone decide.
    """
    # A column that somebody dropped or made anew is not the one that is remembered.
    still = {
        name: column.number
        for name, column in remembered.items()
        if found.get(name) == column.own and column.number
    }
    numbers = {column.number for column in wanted}
    tables = {number >> 16 for number in numbers if number}
    another_table = bool(tables) and not {n >> 16 for n in still.values()} <= tables
    if 0 in numbers or another_table:
        names = {column.name for column in wanted}
        return ColumnChanges(
            gone=tuple(name for name in still if name not in names) if another_table else (),
            added=tuple(column for column in wanted if column.name not in found),
        )
    name_of = {number: name for name, number in still.items()}
    renamed = {
        name_of[column.number]: column.name
        for column in wanted
        if column.number in name_of and name_of[column.number] != column.name
    }
    gone = tuple(name for name, number in still.items() if number not in numbers)
    leaving = {*renamed, *gone}
    replaced, added = [], []
    for column in wanted:
        if column.number in name_of:
            continue
        if column.name not in found or column.name in renamed:
            added.append(column)
        elif column.name in leaving:
            replaced.append(column)
    others = {column.name for column in replaced}
    return ColumnChanges(
        renamed,
        tuple(name for name in gone if name not in others),
        tuple(replaced),
        tuple(added),
    )


_SPELLED = re.compile(r"([a-z\" ]+?)(?:\((\d+)(?:,(-?\d+))?\))?( with(?:out)? time zone)?(\[\])*")

_WIDER = {
    "smallint": ("integer", "bigint", "numeric"),
    "integer": ("bigint", "numeric"),
    "bigint": ("numeric",),
    "real": ("double precision",),
    "character varying": ("text",),
}
_DIGITS = {"smallint": 5, "integer": 10, "bigint": 19}
_BY_LENGTH = (
    "character varying",
    "bit varying",
    "timestamp without time zone",
    "timestamp with time zone",
    "time without time zone",
    "time with time zone",
    "interval",
)


def widens(have: str, want: str) -> bool:
    """Whether every value of the type ``have`` is one of ``want``, unchanged. Types as ``format_type`` spells them."""
    ours, theirs = _SPELLED.fullmatch(have), _SPELLED.fullmatch(want)
    if ours is None or theirs is None or have.count("[]") != want.count("[]"):
        return False
    name, wider = ours[1] + (ours[4] or ""), theirs[1] + (theirs[4] or "")
    if name == wider == "numeric":
        return theirs[2] is None or (ours[2] is not None and _holds(ours, theirs))
    if name == wider:
        return name in _BY_LENGTH and (
            theirs[2] is None or (ours[2] is not None and int(ours[2]) <= int(theirs[2]))
        )
    if wider not in _WIDER.get(name, ()):
        return False
    if wider == "numeric" and theirs[2] is not None:
        return int(theirs[2]) - int(theirs[3] or 0) >= _DIGITS[name]
    return True


def _holds(ours: re.Match[str], theirs: re.Match[str]) -> bool:
    scale, wider_scale = int(ours[3] or 0), int(theirs[3] or 0)
    return wider_scale >= scale and int(theirs[2]) - wider_scale >= int(ours[2]) - scale
