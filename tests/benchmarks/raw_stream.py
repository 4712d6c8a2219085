"""The physical limit of a drain: the same log read as fast as the client library takes it, and thrown away."""

from __future__ import annotations

import select
import time
from dataclasses import dataclass

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from tests.benchmarks.usage import CpuMeter

_BURST_WAIT = 200e-6
"""Found best by performance.md: lets the server fill the socket, so that it sends in few large pieces."""


@dataclass(frozen=True, slots=True)
class RawStream:
    """``walsender_cpu_s`` is what the server's side of it used."""

    seconds: float
    walsender_cpu_s: float


def read_raw(dsn: str, slot: str, publication: str, end: int) -> RawStream:
    """Read the slot in bursts until the message that stands at ``end``; then drop the slot."""
    connection = psycopg.connect(make_conninfo(dsn, replication="database"), autocommit=True)
    try:
        pgconn = connection.pgconn
        meter = CpuMeter(pgconn.backend_pid)
        began = time.perf_counter()
        result = pgconn.exec_(
            f"START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', binary 'true',"
            f" messages 'true', publication_names '{publication}')".encode()
        )
        assert result.status == pq.ExecStatus.COPY_BOTH, result.error_message
        _drain(pgconn, end)
        found = RawStream(time.perf_counter() - began, meter.seconds())
    finally:
        connection.close()
    with psycopg.connect(dsn, autocommit=True) as side:
        side.execute(
            "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots"
            " WHERE slot_name = %s AND active",
            (slot,),
        )
        side.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
    return found


def _drain(pgconn: pq.abc.PGconn, end: int) -> None:
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    get, consume = pgconn.get_copy_data, pgconn.consume_input
    message = memoryview(b"")
    emptied = False
    while True:
        length, view = get(1)
        if length > 0:
            message = view
            emptied = False
        elif not emptied:
            consume()
            emptied = True
        else:
            if int.from_bytes(message[1:9]) >= end:  # of data and of keepalives alike
                return
            poll.poll(1000)
            time.sleep(_BURST_WAIT)
            consume()
