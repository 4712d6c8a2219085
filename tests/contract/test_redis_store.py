from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import pytest
import redis

from cdc.protocols import PartitionStore
from cdc.table import Table
from cdc.testing.partition_contract import PartitionStoreContract
from tests.integration.redis_replica import open_store


class TestRedisStore(PartitionStoreContract):
    @pytest.fixture(autouse=True)
    def empty_replica(self, redis_url: str) -> Iterator[None]:
        self.url = redis_url
        self.opened: list[PartitionStore] = []
        yield
        for opened in self.opened:
            opened.close()

    def open_store(self) -> PartitionStore:
        self.opened.append(open_store(self.url))
        return self.opened[-1]

    def rows(self, table: Table) -> Sequence[Mapping[str, object]]:
        with redis.Redis.from_url(self.url, decode_responses=True) as client:
            found = [
                cast("dict[str, str]", client.hgetall(key))
                for key in client.scan_iter(match=f"p:{table.id}:*")
            ]
        return [
            {"id": int(row["id"]), "name": row.get("name"), "note": row.get("note")}
            for row in found
        ]
