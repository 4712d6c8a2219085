"""Which columns are captured, what is masked, and what a message's key is made of: by configuration, for one table.

Names are matched as Debezium matches them: ``schema.table.column``, whole, in any case; of several masks the first one
in Debezium's order counts. What would leave a value in the open that was to be masked, or a row without its key, is an
error (ConfigError), where Debezium passes over it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from cdc.errors import ConfigError
from cdc.table import TableId
from connectors.postgres.masks import Hash, Mask
from connectors.postgres.types import Attribute

_CHARACTERS = ("text", "character varying", "character", "bpchar", "citext", "name")
_WITH_LENGTH = ("character varying", "character", "bpchar")
_MODIFIER = re.compile(r"\([^)]*\)")

Patterns = tuple[re.Pattern[str], ...]


@dataclass(frozen=True, slots=True)
class MaskRule:
    """``setting`` is the property's name as it may be shown: without its salt."""

    setting: str
    mask: Mask
    columns: Patterns


@dataclass(frozen=True, slots=True)
class KeyRule:
    """Tables, and the patterns of their columns that make the message's key, in its order."""

    table: str
    columns: Patterns


@dataclass(frozen=True, slots=True)
class ColumnRules:
    """The rules of one source."""

    included: Patterns = ()
    excluded: Patterns = ()
    masks: tuple[MaskRule, ...] = ()
    keys: tuple[KeyRule, ...] = ()

    def takes(self, table: TableId, column: str) -> bool:
        """Whether the column is captured."""
        name = f"{table}.{column}"
        return (not self.included or _any(self.included, name)) and not _any(self.excluded, name)

    def message_key(self, table: TableId, columns: Sequence[str]) -> tuple[str, ...]:
        """The columns that ``message.key.columns`` chooses of these; empty where it says nothing of the table."""
        return tuple(
            dict.fromkeys(
                column
                for rule in self.keys
                for pattern in rule.columns
                for column in columns
                if pattern.fullmatch(f"{table}.{column}")
            )
        )

    def applied(
        self, table: TableId, attributes: Sequence[Attribute], key: Collection[str]
    ) -> tuple[Attribute, ...]:
        """The columns with what becomes of them; ``key`` is what the message's key will be."""
        return tuple(self._applied(table, attribute, key) for attribute in attributes)

    def _applied(self, table: TableId, attribute: Attribute, key: Collection[str]) -> Attribute:
        name = f"{table}.{attribute.name}"
        in_key = attribute.name in key
        if not self.takes(table, attribute.name):
            if in_key:
                raise ConfigError(
                    f"column {name} is left out by the column lists, and belongs to the message key",
                    "capture it, or choose another key by message.key.columns",
                )
            return replace(attribute, excluded=True)
        rule = next((rule for rule in self.masks if _any(rule.columns, name)), None)
        if rule is None:
            # A column of the key that is NULL all the same is found when it comes.
            return replace(attribute, not_null=True) if in_key else attribute
        if in_key:
            raise ConfigError(
                f"{rule.setting} matches {name}, which belongs to the message key",
                "rows are found by their keys: mask another column, or choose the key by message.key.columns",
            )
        return replace(attribute, mask=_fitted(rule, name, attribute))


def check_covered(table: TableId, before: Sequence[Attribute], now: Sequence[Attribute]) -> None:
    """That no column comes out from under its rule by a new name. ConfigError where one may have."""
    names, known = {column.name for column in now}, {column.name for column in before}
    gone = [c.name for c in before if c.name not in names and (c.excluded or c.mask is not None)]
    open_now = [c.name for c in now if c.name not in known and not c.excluded and c.mask is None]
    if gone and open_now:
        raise ConfigError(
            f"{table} has lost {', '.join(gone)}, which is masked or left out, and got {', '.join(open_now)}, which is not:"
            " if that is a new name, its values would be in the open",
            f"have the mask or the column list match {table}.{open_now[0]} too; if it is another column, start again",
        )


def _fitted(rule: MaskRule, name: str, attribute: Attribute) -> Mask:
    """The rule's mask for this column. ConfigError for a column that holds no text."""
    inner = attribute
    while inner.typtype == "d" and inner.inner is not None:
        inner = inner.inner
    base = _MODIFIER.sub("", inner.formatted_type)
    if base not in _CHARACTERS and inner.type_name != "citext":
        raise ConfigError(
            f"{rule.setting} matches {name}, which is of type {attribute.formatted_type}: only texts are masked",
            "leave the column out by column.exclude.list, or make the expression narrower",
        )
    if isinstance(rule.mask, Hash) and base in _WITH_LENGTH and inner.typmod > 4:
        return replace(rule.mask, length=inner.typmod - 4)
    return rule.mask


def _any(patterns: Patterns, name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in patterns)
