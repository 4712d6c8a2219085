"""Masks in SQL are the masks of rows: a digest of the source hashes what the replica holds."""

from __future__ import annotations

import random

import psycopg
import pytest
from psycopg.sql import SQL

from connectors.postgres.masks import ALGORITHMS, Hash, Mask, Stars, Truncation, told_in_sql

_LETTERS = "aZ09 '\\\"%\n\t|,éß€漢😀\U0001f9ea\U0010ffff\ue000"

MASKS: list[Mask] = [
    Truncation(1),
    Truncation(7),
    Stars(0),
    Stars(5),
    *(
        Hash(algorithm, "sält".encode(), strategy, length)
        for algorithm in sorted(set(ALGORITHMS.values()))
        for strategy in ("plain", "java")
        for length in (0, 5)
    ),
]


@pytest.mark.parametrize("mask", [mask for mask in MASKS if told_in_sql(mask)], ids=str)
def test_a_mask_gives_the_same_in_sql(source_dsn: str, mask: Mask) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    values: list[str | None] = [None, "", "x" * 65535, "x" * 65536, "😀" * 10923]
    values += ["".join(chance.choices(_LETTERS, k=chance.randrange(1, 30))) for _ in range(150)]
    query = mask.in_sql(SQL("v"))
    assert query is not None
    with psycopg.connect(source_dsn) as connection:
        found = connection.execute(
            SQL("SELECT v, {}::text FROM unnest(%s::text[]) v").format(query), (values,)
        ).fetchall()
    null = "*" * mask.count if isinstance(mask, Stars) else None
    for value, made in found:
        wanted = null if value is None else mask.apply(value.encode()).decode()
        assert made == wanted, repr(value)[:40]


def test_a_hash_that_the_server_lacks_is_known_to_be_so() -> None:
    assert not told_in_sql(Hash("sha1", b"", "plain"))
    assert told_in_sql(Hash("sha512", b"", "java"))
