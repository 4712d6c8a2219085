"""Which of a source's topics a sink reads, and what each of them is."""

from __future__ import annotations

import re
from collections.abc import Collection

from cdc.errors import ConfigError

_MARKS = ".transaction"


class Selection:
    """The topics of the source ``prefix`` that ``topics`` lists or ``regex`` matches whole; neither: all data topics.

    A data topic is ``<prefix>.<schema>.<table>``; its *collection* is ``schema.table``. The topics of marks and
    watermarks are always read.
    """

    def __init__(
        self, prefix: str, topics: Collection[str] = (), regex: str | re.Pattern[str] | None = None
    ) -> None:
        if topics and regex:
            raise ConfigError("topics and topics.regex are both set", "set one of them")
        self.prefix = prefix
        self.transaction_topic = f"{prefix}{_MARKS}"
        self.watermark_topic = f"{prefix}.watermark"
        self._listed = frozenset(topics)
        self._regex = re.compile(regex) if regex else None
        foreign = sorted(topic for topic in topics if not self._is_data(topic))
        if foreign:
            raise ConfigError(
                f"topics names {foreign[0]}, which is no data topic of {prefix}",
                f"name topics of the form {prefix}.<schema>.<table>",
            )

    def collection(self, topic: str) -> str | None:
        """``schema.table`` of a data topic that is read; None for every other topic."""
        return topic[len(self.prefix) + 1 :] if self._includes(topic) else None

    def topic(self, collection: str) -> str | None:
        """The data topic of a collection that is read; None for one that is not."""
        topic = f"{self.prefix}.{collection}"
        return topic if self._includes(topic) else None

    def of_other_sources(self, names: Collection[str]) -> list[str]:
        """Data topics among these that the expression matches, and that belong to another source: those are not read.

        A source is told by its transaction topic. Other topics of the cluster may match whatever they like.
        """
        if self._regex is None:
            return []
        others = {name.removesuffix(_MARKS) for name in names if name.endswith(_MARKS)}
        return sorted(
            name
            for name in names
            if self._regex.fullmatch(name) is not None
            and not name.startswith(f"{self.prefix}.")
            and any(_is_data(prefix, name) for prefix in others)
        )

    def _includes(self, topic: str) -> bool:
        if self._listed:
            return topic in self._listed
        if self._regex is not None:
            return self._is_data(topic) and self._regex.fullmatch(topic) is not None
        return self._is_data(topic)

    def _is_data(self, topic: str) -> bool:
        return _is_data(self.prefix, topic)


def _is_data(prefix: str, topic: str) -> bool:
    start = f"{prefix}."
    return topic.startswith(start) and "." in topic[len(start) :].strip(".")
