"""Waits for what capture says of our fences on ``<prefix>.watermark``."""

from __future__ import annotations

import time

from cdc.errors import Rejected
from cdc.fence import Watermark
from cdc.position import TopicPartition
from cdc.protocols import EventDecoder, TopicReader
from cdc.verify.inconclusive import Inconclusive, Standstill

_POLL = 0.02  # seconds; a reader returns earlier when something arrives


class FenceLog:
    """Follows the watermark topic from its end at the time of construction, for fences whose ids begin with ``run``.

    Raises Inconclusive when the topic is not there: capture has never run.
    """

    def __init__(
        self, reader: TopicReader, decoder: EventDecoder, source: str, run: str, timeout: float
    ) -> None:
        topic = f"{source}.watermark"
        if topic not in reader.topics():
            raise Inconclusive(f"there is no topic {topic}: has capture of {source} ever run?")
        self._reader = reader
        self._decoder = decoder
        self._run = run
        self._timeout = timeout
        self._met: dict[str, Watermark] = {}
        partition = TopicPartition(topic, 0)
        reader.assign({partition: reader.bounds([partition])[partition][1]})

    def wait(self, fence: str) -> Watermark:
        """The watermark of this fence. Inconclusive when it is not published in time. Each can be asked for once."""
        deadline = time.monotonic() + self._timeout
        while (found := self._met.pop(fence, None)) is None:
            if time.monotonic() > deadline:
                raise Standstill(
                    f"fence not published within {self._timeout:g} s: is capture running?"
                )
            self._take_in()
        return found

    def _take_in(self) -> None:
        for record in self._reader.read(_POLL):
            if record.value is None:
                continue
            try:
                watermark = self._decoder.watermark(record)
            except Rejected as error:
                raise Inconclusive(f"a watermark cannot be read: {error.what}") from error
            if watermark.fence.startswith(self._run):
                self._met[watermark.fence] = watermark

    def close(self) -> None:
        """Safe to repeat."""
        self._reader.close()
