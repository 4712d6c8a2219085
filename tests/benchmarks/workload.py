"""The table ``bench_orders`` and its traffic, made by the source server itself so that no client is the limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psycopg

TABLE = "public.bench_orders"

_TABLE = """
CREATE TABLE bench_orders (
    id bigint PRIMARY KEY,
    customer_id integer NOT NULL,
    status text,
    amount numeric(12,2),
    note varchar(120),
    created_at timestamptz,
    updated_at timestamp,
    active boolean,
    score float8,
    payload jsonb
)
"""

_ROW = """
CREATE FUNCTION bench_order(n bigint) RETURNS bench_orders LANGUAGE sql VOLATILE AS $$
SELECT n,
    (n * 7919 % 100003)::integer,
    (ARRAY['new', 'paid', 'packed', 'shipped', 'delivered', 'returned'])[1 + n % 6],
    (n * 104729 % 9999999)::numeric / 100,
    'leave at the ' || (ARRAY['front door', 'back door', 'neighbour', 'desk'])[1 + n % 4]
        || ', ring twice, ask for order ' || n,
    timestamptz '2024-01-01 00:00:00+00' + n * interval '1.37 second',
    timestamp '2024-01-02 00:00:00' + n * interval '1.37 second',
    n % 3 <> 0,
    sqrt(n),
    jsonb_build_object('sku', 'A-' || n % 9973, 'quantity', 1 + n % 7, 'gift', n % 5 = 0)
$$
"""

_MIX = """
CREATE PROCEDURE bench_mix(first bigint, transactions bigint) LANGUAGE plpgsql AS $$
DECLARE
    top bigint := first;
    low bigint := first;
BEGIN
    FOR t IN 1..transactions LOOP
        INSERT INTO bench_orders SELECT (bench_order(n)).* FROM generate_series(top, top + 59) AS n;
        top := top + 60;
        UPDATE bench_orders SET status = 'changed', amount = amount + 1, updated_at = updated_at + interval '1 hour'
            WHERE id = ANY (ARRAY(SELECT low + 10 + i * ((top - low - 10) / 30) FROM generate_series(0, 29) AS i));
        DELETE FROM bench_orders WHERE id >= low AND id < low + 10;
        low := low + 10;
        COMMIT;
    END LOOP;
END $$
"""

_PLAIN = """
CREATE PROCEDURE bench_plain(first bigint, transactions bigint, size bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR t IN 0..transactions - 1 LOOP
        INSERT INTO bench_orders SELECT (bench_order(n)).*
            FROM generate_series(first + t * size, first + (t + 1) * size - 1) AS n;
        COMMIT;
    END LOOP;
END $$
"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What traffic left in the log."""

    events: int
    records: int
    """Records that it becomes on the table's topic: a delete brings its tombstone along."""
    transactions: int


def create(dsn: str) -> None:
    """The empty table, and what makes its traffic."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in (_TABLE, _ROW, _MIX, _PLAIN):
            connection.execute(statement)


def create_table(dsn: str) -> None:
    """The empty table alone."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS bench_orders")
        connection.execute(_TABLE)


def mix(dsn: str, events: int) -> Backlog:
    """60 % inserts, 30 % updates, 10 % deletes, in transactions of 100 rows, on the empty table."""
    transactions = events // 100
    _call(dsn, "CALL bench_mix(1, %s)", transactions)
    return Backlog(transactions * 100, transactions * 110, transactions)


def plain(dsn: str, events: int, size: int = 1_000) -> Backlog:
    """Inserts in transactions of ``size`` rows, on the empty table."""
    transactions = max(1, events // size)
    _call(dsn, "CALL bench_plain(1, %s, %s)", transactions, size)
    return Backlog(transactions * size, transactions * size, transactions)


def _call(dsn: str, call: str, *arguments: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")  # making the backlog is not measured
        connection.execute(call, arguments)


TRAFFIC: dict[str, Callable[[str, int], Backlog]] = {
    "mix": mix,
    "plain": plain,
    "small": lambda dsn, events: plain(dsn, events, size=1),
}
"""Kinds of traffic by name."""
