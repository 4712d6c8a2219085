"""The replication connection: frames of the log in, standby status out. All the I/O, none of the meaning.

A frame is the payload of one CopyData message: ``w`` (XLogData: start, end, clock, then pgoutput's message) or ``k``
(keepalive: end, clock, reply requested).
https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import contextlib
import select
import struct
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

import psycopg
from psycopg import errors, pq, sql

from cdc.errors import Refused, Unreachable
from connectors.postgres.connection import connect
from connectors.postgres.errors import translate, translated
from connectors.postgres.lsn import format_lsn, parse_lsn

_STATUS = struct.Struct("!cQQQqB")
_EPOCH_2000 = 946_684_800_000_000
_XLOG = ord("w")
_MESSAGE = ord("M")
_KIND = 25
_OID = slice(26, 30)
"""Of the relation, in frames that carry a row."""

_BATCH_BYTES = 1 << 20
_BATCH_FRAMES = 2_000
_BUSY = 2e-3
"""Data that came so lately says that more is on its way: the next read is a burst."""
_BURST_WAIT = 200e-6
"""Lets the walsender fill the socket: emptied at once, it would flush message by message."""
_STATUS_EVERY = 10.0
_CONFIRM_EVERY = 0.5
_ASK_AFTER = 20.0
_GIVE_UP_AFTER = 40.0


class SystemIdentity(NamedTuple):
    """The answer to IDENTIFY_SYSTEM; ``flushed`` is the end of the server's flushed log."""

    system_id: str
    timeline: int
    flushed: int
    database: str


class TooWide(Exception):
    """The log holds what no record has room for; met before it is taken in, so that it costs no more memory.

    ``oid`` is the relation of a row, 0 for a logical message.
    """

    def __init__(self, oid: int, size: int) -> None:
        super().__init__(f"relation {oid}: {size} bytes")
        self.oid = oid
        self.size = size


class ReplicationLog:
    """A walsender session: commands first, then one stream. Not thread-safe.

    ``widest`` bounds a frame, in bytes: `read` raises TooWide for one that is larger.
    Errors: Unreachable when the link or the server goes away; the session is of no more use then.
    """

    def __init__(self, conninfo: str, connector: str, widest: int = sys.maxsize) -> None:
        self._widest = widest
        self._connection = connect(conninfo, connector=connector, purpose="log", replication=True)
        self._pgconn = self._connection.pgconn
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self._streaming = False
        self._received = 0
        self._confirmed = 0
        self._sent_confirmed = 0
        self._reply_asked = False
        self._status_every = _STATUS_EVERY
        self._status_at = self._heard_at = time.monotonic()
        self._asked_at: float | None = None

    def identify(self) -> SystemIdentity:
        """Whose log it is, and on which timeline the server is now."""
        system_id, timeline, flushed, database = self._row("IDENTIFY_SYSTEM")
        return SystemIdentity(
            system_id.decode(), int(timeline), parse_lsn(flushed.decode()), database.decode()
        )

    def switch_point(self, timeline: int) -> int:
        """The LSN at which the server's history left ``timeline``. Refused when it never was on it."""
        now = self.identify().timeline
        if now == 1:
            raise _never_on(timeline)
        _, history = self._row(f"TIMELINE_HISTORY {now}")
        for line in history.decode().splitlines():
            fields = line.split()
            if len(fields) >= 2 and fields[0] == str(timeline):
                return parse_lsn(fields[1])
        raise _never_on(timeline)

    def fail_over(self, slot: str) -> None:
        """Have standbys keep a copy of the slot from now on (PostgreSQL 17).

        psycopg's ObjectInUse passes through untranslated: the caller knows how to wait for the slot.
        """
        command = sql.SQL("ALTER_REPLICATION_SLOT {} (FAILOVER true)").format(sql.Identifier(slot))
        try:
            result = self._pgconn.exec_(command.as_bytes(self._connection))
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise errors.error_from_result(result)
        except errors.ObjectInUse:
            raise
        except psycopg.Error as error:
            raise translate(error, f"making slot {slot} a failover slot") from error

    def start(self, slot: str, after: int, options: Mapping[str, str]) -> None:
        """Begin to stream transactions that end after ``after``.

        psycopg's ObjectInUse passes through untranslated: the caller knows how to wait for the slot.
        """
        with translated("starting the stream"):
            timeout = self._row("SHOW wal_sender_timeout")[0].decode()
        self._status_every = min(_STATUS_EVERY, (_seconds(timeout) or 60.0) / 3)
        command = sql.SQL("START_REPLICATION SLOT {} LOGICAL {} ({})").format(
            sql.Identifier(slot),
            sql.SQL(format_lsn(after)),
            sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value))
                for name, value in options.items()
            ),
        )
        try:
            result = self._pgconn.exec_(command.as_bytes(self._connection))
            if result.status != pq.ExecStatus.COPY_BOTH:
                raise errors.error_from_result(result)
        except errors.ObjectInUse:
            raise
        except psycopg.Error as error:
            raise translate(error, f"starting to stream from slot {slot}") from error
        self._streaming = True
        self._received = after
        self._heard_at = time.monotonic()

    def read(self, timeout: float) -> list[bytes]:
        """The frames that arrived, at most about 1 MiB or 2,000; empty after ``timeout`` seconds of silence.

        With a backlog it reads in bursts (fewer, larger sends by the server); without one it returns at once.
        """
        busy = time.monotonic() - self._heard_at < _BUSY
        try:
            frames = self._drain(1 if busy else 0)
            if not frames:
                self.keep_alive()
                if self._poll.poll(timeout * 1000):
                    frames = self._drain(1 if busy else 0)
        except psycopg.Error as error:
            raise translate(error, "reading the log") from error
        self._hear(frames)
        self.keep_alive()
        return frames

    def confirm(self, lsn: int) -> None:
        """Let the slot move up to ``lsn``; lower than before changes nothing. Sent within half a second of calls."""
        self._confirmed = max(self._confirmed, lsn)
        self.keep_alive()

    def keep_alive(self) -> None:
        """Send a status if one is due."""
        if not self._streaming:
            return
        waited = time.monotonic() - self._status_at
        news = self._confirmed > self._sent_confirmed and waited > _CONFIRM_EVERY
        if self._reply_asked or news or waited > self._status_every:
            self._send_status(ask=False)

    def close(self) -> None:
        """Send the last confirmed LSN, as far as the link takes it, and end the session. Safe to repeat."""
        if self._streaming and self._confirmed > self._sent_confirmed:
            # What the server does not know to be confirmed, it sends again.
            with contextlib.suppress(Unreachable):
                self._send_status(ask=False)
        self._streaming = False
        self._connection.close()

    def _drain(self, patience: int) -> list[bytes]:
        """What can be read now, and again after each of ``patience`` short waits."""
        frames: list[bytes] = []
        append = frames.append
        get = self._pgconn.get_copy_data
        consume = self._pgconn.consume_input
        size, fresh = 0, False
        while True:
            length, view = get(1)
            if length > 0:
                if length > self._widest:
                    row = view[_KIND] != _MESSAGE
                    raise TooWide(int.from_bytes(view[_OID]) if row else 0, length)
                append(bytes(view))
                size += length
                fresh = False
                if size >= _BATCH_BYTES or len(frames) >= _BATCH_FRAMES:
                    break
            elif length == 0:
                if fresh:
                    # The socket was just emptied, and holds no whole message.
                    if patience == 0 or not frames:
                        break
                    patience -= 1
                    time.sleep(_BURST_WAIT)
                consume()
                fresh = True
            else:
                self._raise_end()
        return frames

    def _hear(self, frames: list[bytes]) -> None:
        now = time.monotonic()
        if frames:
            self._heard_at, self._asked_at = now, None
            end = int.from_bytes(frames[-1][1:9])
            self._received = max(self._received, end)
            self._reply_asked = any(frame[0] != _XLOG and frame[17] for frame in frames)
        elif self._asked_at is None:
            if now - self._heard_at > _ASK_AFTER:
                self._asked_at = now
                self._send_status(ask=True)
        elif now - self._asked_at > _GIVE_UP_AFTER:
            raise Unreachable(
                "the server has not answered on the replication connection",
                "tried again; look at the network between",
            )

    def _send_status(self, *, ask: bool) -> None:
        clock = time.time_ns() // 1000 - _EPOCH_2000
        status = _STATUS.pack(
            b"r",
            max(self._received, self._confirmed),
            self._confirmed,
            self._confirmed,
            clock,
            1 if ask else 0,
        )
        try:
            self._pgconn.put_copy_data(status)
            # What the socket does not take now goes out with the next one.
            self._pgconn.flush()
        except psycopg.Error as error:
            raise translate(error, "confirming the log") from error
        self._status_at = time.monotonic()
        self._sent_confirmed = self._confirmed
        self._reply_asked = False

    def _raise_end(self) -> None:
        self._streaming = False
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result)
        raise Unreachable("the server ended the stream", "tried again until it can serve it")

    def _row(self, command: str) -> list[bytes]:
        try:
            result = self._pgconn.exec_(command.encode())
            if result.status != pq.ExecStatus.TUPLES_OK:
                raise errors.error_from_result(result)
        except psycopg.Error as error:
            raise translate(error, f"asking {command}") from error
        return [result.get_value(0, column) or b"" for column in range(result.nfields)]


def _never_on(timeline: int) -> Refused:
    return Refused(
        f"the server's history was never on timeline {timeline}",
        "it is not the server that was captured; start a new generation with backfill and verify",
    )


def _seconds(setting: str) -> float:
    """A server setting of time as SHOW prints it (``1min``, ``500ms``), in seconds."""
    digits = "".join(char for char in setting if char.isdigit())
    unit = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    return int(digits or 0) * unit.get(setting[len(digits) :], 0.001)
