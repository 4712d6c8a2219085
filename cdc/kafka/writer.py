"""The one producer of a source's topics: in order, for ever or not at all.

Sinks skip what is at or below the position they hold, which is right only if positions first appear in order in each
partition. So the producer is idempotent, its messages never expire (``message.timeout.ms=0``), and librdkafka's
gapless guarantee makes it give up for good when a record fails: without that it would go on with the next one.
After any failed record nothing more is sent, and the owner starts anew from its checkpoint.

An idempotent producer does not fence an earlier one. What keeps a zombie from writing beside us is the replication
slot, which one session holds exclusively, and the checkpoint topic, whose claim is fenced (`cdc.kafka.checkpoints`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc.errors import CdcError, Refused, Unreachable
from cdc.event import Record
from cdc.kafka.client import ClientWatch, Cluster, override_checked
from cdc.kafka.errors import reason, translate
from cdc.kafka.topics import Topics
from cdc.position import TopicPartition

MEBIBYTE = 1024 * 1024

FIXED: Mapping[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "enable.gapless.guarantee": True,
    "message.timeout.ms": 0,
    "allow.auto.create.topics": False,
}
"""What correctness stands on: no override changes these."""

DEFAULTS: Mapping[str, Any] = {
    "linger.ms": 2,
    "compression.type": "lz4",
    "batch.size": 1_000_000,
    "batch.num.messages": 100_000,
    "message.max.bytes": 8 * MEBIBYTE,
}

_SMALLEST_RECORD = (
    256  # bytes that a queued record costs the client at least, beside its key and value
)
_RECORD_OVERHEAD = 512  # framing of a batch with one record
_EXPLAINING = 0.5  # seconds
_SLICE = 0.1  # seconds between two calls of keep_alive
_SILENCE = 5.0  # seconds


class KafkaTopicWriter:
    """`cdc.protocols.TopicWriter` on librdkafka's producer. Not thread-safe.

    ``budget_bytes`` bounds what is queued and not acknowledged. ``limits`` has each topic's max.message.bytes, as
    far as it is known. ``overrides`` are further client settings, ``fixed`` such that none overrides. ``keep_alive`` is called at least every 100 ms
    while a call waits; when it raises, what was given to that call is partly written, and the writer is to be closed.
    """

    def __init__(
        self,
        cluster: Cluster,
        keep_alive: Callable[[], None],
        *,
        budget_bytes: int = 64 * MEBIBYTE,
        limits: Mapping[str, int] | None = None,
        overrides: Mapping[str, Any] | None = None,
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        overrides = overrides or {}
        fixed = {**FIXED, **(fixed or {})}
        override_checked(overrides, fixed, "producer.override.")
        budget = {
            "queue.buffering.max.kbytes": max(1, budget_bytes // 1024),
            "queue.buffering.max.messages": max(1000, budget_bytes // _SMALLEST_RECORD),
        }
        own = {**DEFAULTS, **budget, **overrides, **fixed}
        self._cluster = cluster
        self._keep_alive = keep_alive
        self._limits = {} if limits is None else limits
        self._limit = int(own["message.max.bytes"])
        self._watch = ClientWatch(f"writing to the topics at {cluster.bootstrap}")
        try:
            self._producer = Producer(cluster.settings(self._watch, own))
        except KafkaException as error:
            raise translate(error, "the producer's settings") from error
        self._topics: Topics | None = None
        self._lanes: dict[str, dict[int, _Lane]] = {}
        self._touched: list[_Lane] = []
        self._segment = 0
        self._marks: deque[tuple[object, list[tuple[_Lane, int]]]] = deque()
        self._answered_at = self._asked_at = time.monotonic()
        self._closed = False

    def away(self) -> str:
        """Why nothing can be written now; empty while it can. It goes on by itself. For any thread.

        A broker that keeps its connections and answers nothing is known by the records that wait for it.
        """
        if self._closed:
            return ""
        if outage := self._watch.away(self._producer):
            return outage
        silent = self._asked_at - self._answered_at
        if silent > _SILENCE and len(self._producer):
            return f"no record has been acknowledged for {silent:.0f} s"
        return ""

    @property
    def pending(self) -> int:
        """Records that are not acknowledged yet."""
        return len(self._producer)

    def write(self, records: Sequence[Record]) -> None:
        """Send in order; blocks while the byte budget is used up. See `cdc.protocols.TopicWriter`."""
        self._check()
        lanes = self._lanes
        touched = self._touched
        segment = self._segment
        produce = self._producer.produce
        for record in records:
            topic, partition, key, value, headers, _ = record
            try:
                lane = lanes[topic][partition]
            except KeyError:
                lane = self._new_lane(topic, partition)
            if lane.segment != segment:
                lane.segment = segment
                touched.append(lane)
            if value is not None and len(value) > lane.suspicious:
                self._check_size(record)
            try:
                if headers:
                    produce(topic, value, key, partition, lane.on_delivery, None, 0, list(headers))
                else:
                    produce(topic, value, key, partition, lane.on_delivery)
            except BufferError:
                self._produce_patiently(record, lane)
            except KafkaException as error:
                raise self._refused(record, error) from error
            lane.sent += 1
        self._serve(0)

    def mark(self, mark: object) -> None:
        """Remember ``mark`` as standing behind all that was written so far."""
        self._check()
        self._marks.append((mark, [(lane, lane.sent) for lane in self._touched]))
        self._touched = []
        self._segment += 1

    def durable(self) -> Sequence[object]:
        """The marks, in order, each returned once, before which every record is acknowledged by acks=all."""
        self._serve(0)
        self._check()
        marks = self._marks
        done: list[object] = []
        while marks:
            mark, lanes = marks[0]
            while lanes and lanes[-1][0].acknowledged >= lanes[-1][1]:
                lanes.pop()
            if lanes:
                break
            marks.popleft()
            done.append(mark)
        if done or not len(self._producer):
            self._answered_at = self._asked_at
        if done:
            self._watch.on_success()
        return done

    def end_offset(self, partition: TopicPartition) -> int:
        """One past the last acknowledged record of the partition, by this or any earlier producer.

        Asks the partition's leader when this producer has none acknowledged there: Unreachable when it is away.
        """
        self._check()
        end = self.acknowledged(partition)
        if end is not None:
            return end
        if self._topics is None:
            self._topics = Topics(self._cluster, self._keep_alive)
        return self._topics.bounds([partition])[partition][1]

    def acknowledged(self, partition: TopicPartition) -> int | None:
        """One past the last record of the partition that is acknowledged to this producer; None when none is."""
        lane = self._lanes.get(partition.topic, {}).get(partition.partition)
        if lane is not None and lane.last is not None:
            offset = lane.last.offset()
            if offset is not None and offset >= 0:
                return offset + 1
        return None

    def flush(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for all acknowledgements; False when the time was not enough."""
        end = time.monotonic() + timeout
        while True:
            self._check()
            left = end - time.monotonic()
            try:
                rest = self._producer.flush(max(0.0, min(_SLICE, left)))
            except KafkaException as error:
                self._watch.on_fatal(error)
                continue
            if rest == 0:
                self._check()
                return True
            if left <= 0:
                return False
            self._keep_alive()

    def close(self) -> None:
        """Drop what is not acknowledged: it may or may not have reached the brokers. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self._watch.fail(Unreachable("the writer is closed"))
        self._producer.purge()
        self._serve(0)
        self._marks.clear()
        self._lanes.clear()
        self._touched.clear()
        # What was fatal to it was told already; the client's close may end with an error and an answer at once.
        with suppress(KafkaException, SystemError):
            self._producer.close()

    def _serve(self, seconds: float) -> None:
        """Let the client call back; it raises here what is fatal to it."""
        self._asked_at = time.monotonic()
        try:
            self._producer.poll(seconds)
        except KafkaException as error:
            self._watch.on_fatal(error)

    def _check(self) -> None:
        if self._watch.failed and not self._watch.explained:
            self._explain()
        self._watch.check()

    def _explain(self) -> None:
        """Wait for the report on the record that the client gave up at: it follows the fatal error."""
        until = time.monotonic() + _EXPLAINING
        while not self._watch.explained and time.monotonic() < until:
            self._serve(0.05)

    def _new_lane(self, topic: str, partition: int) -> _Lane:
        limit = min(self._limit, self._limits.get(topic, self._limit))
        lane = _Lane(limit // 2, self._lost)
        self._lanes.setdefault(topic, {})[partition] = lane
        return lane

    def _lost(self, error: KafkaError, message: Message) -> None:
        """A record failed for good: nothing may follow it."""
        if not self._watch.explained:
            at = f"writing to {message.topic()}[{message.partition()}] (a key of {len(message.key() or b'')} bytes)"
            self._watch.fail(translate(error, at))
        if not self._closed:
            self._producer.purge(blocking=False)

    def _produce_patiently(self, record: Record, lane: _Lane) -> None:
        """Try the same record again until there is room for it."""
        topic, partition, key, value, headers, _ = record
        while True:
            self._serve(_SLICE)
            self._check()
            self._keep_alive()
            try:
                self._producer.produce(
                    topic, value, key, partition, lane.on_delivery, None, 0, list(headers)
                )
            except BufferError:
                continue
            except KafkaException as error:
                raise self._refused(record, error) from error
            return

    def _check_size(self, record: Record) -> None:
        headers = sum(len(name) + len(value) for name, value in record.headers)
        size = len(record.key or b"") + len(record.value or b"") + headers + _RECORD_OVERHEAD
        limit = min(self._limit, self._limits.get(record.topic, self._limit))
        if size > limit:
            failure = Refused(
                f"a record for {record.topic}[{record.partition}] has {size} bytes (its key {len(record.key or b'')}),"
                f" the limit is {limit}",
                "raise max.message.bytes of the topic and producer.override.message.max.bytes,"
                " or leave out the wide column",
            )
            self._watch.fail(failure)
            self._producer.purge(blocking=False)
            raise failure

    def _refused(self, record: Record, error: KafkaException) -> CdcError:
        """What to raise when the client does not even queue a record."""
        if reason(error).fatal():
            self._watch.on_fatal(error)
        else:
            at = f"writing to {record.topic}[{record.partition}]"
            self._watch.fail(translate(error, f"{at} (a key of {len(record.key or b'')} bytes)"))
        try:
            self._check()
        except CdcError as failure:
            return failure
        raise AssertionError("a failed writer passed its check")


class _Lane:
    """One partition's records: how many were sent, how many are acknowledged, and the last of those."""

    __slots__ = ("acknowledged", "last", "on_delivery", "segment", "sent", "suspicious")

    def __init__(self, suspicious: int, lost: Callable[[KafkaError, Message], None]) -> None:
        self.sent = 0
        self.acknowledged = 0
        self.last: Message | None = None
        self.segment = -1
        self.suspicious = suspicious

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                lost(error, message)
                return
            self.acknowledged += 1
            self.last = message

        self.on_delivery = on_delivery
