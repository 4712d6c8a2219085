"""Which of a source's topics a sink reads, and what each of them is."""

from __future__ import annotations

import re
from collections.abc import Collection

from cdc.errors import ConfigError


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
        self.transaction_topic = f"{prefix}.transaction"
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

    def _includes(self, topic: str) -> bool:
        if self._listed:
            return topic in self._listed
        if self._regex is not None:
            return self._is_data(topic) and self._regex.fullmatch(topic) is not None
        return self._is_data(topic)

    def _is_data(self, topic: str) -> bool:
        start = f"{self.prefix}."
        return topic.startswith(start) and "." in topic[len(start) :].strip(".")
