from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from cdc.protocols import PartitionStore, Store
from cdc.table import Table
from cdc.testing.memory_partitions import MemoryPartitions, MemoryPartitionStore
from cdc.testing.memory_store import MemoryReplica, MemoryStore
from cdc.testing.partition_contract import PartitionStoreContract
from cdc.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture(autouse=True)
    def empty_replica(self) -> None:
        self.replica = MemoryReplica()

    def open_store(self) -> Store:
        return MemoryStore(self.replica)

    def rows(self, table: Table) -> Sequence[Mapping[str, object]]:
        return list(self.replica.rows.get(str(table.id), {}).values())

    def exists(self, table: Table) -> bool:
        return str(table.id) in self.replica.rows


class TestMemoryPartitionStore(PartitionStoreContract):
    @pytest.fixture(autouse=True)
    def empty_replica(self) -> None:
        self.held = MemoryPartitions()

    def open_store(self) -> PartitionStore:
        return MemoryPartitionStore(self.held)

    def rows(self, table: Table) -> Sequence[Mapping[str, object]]:
        return list(self.held.replica.rows.get(str(table.id), {}).values())
