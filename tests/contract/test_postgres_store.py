from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from cdc.protocols import PartitionStore, Store
from cdc.table import Table
from cdc.testing.partition_contract import PartitionStoreContract
from cdc.testing.store_contract import StoreContract
from connectors.postgres.partition_store import PostgresPartitionStore
from connectors.postgres.sink import PostgresStore
from tests.integration.item_history import sink_settings, store


def exists(dsn: str, table: Table) -> bool:
    with psycopg.connect(dsn) as connection:
        name = sql.Identifier(*table.id).as_string(connection)
        found = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone()
        return found == (True,)


def rows(dsn: str, table: Table) -> Sequence[Mapping[str, object]]:
    if not exists(dsn, table):
        return []
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        name = sql.Identifier(*table.id)
        return connection.execute(sql.SQL("SELECT * FROM {}").format(name)).fetchall()


class TestPostgresStore(StoreContract):
    @pytest.fixture(autouse=True)
    def empty_replica(self, replica_dsn: str) -> Iterator[None]:
        self.dsn = replica_dsn
        self.opened: list[PostgresStore] = []
        yield
        for opened in self.opened:
            opened.close()

    def open_store(self) -> Store:
        self.opened.append(store(self.dsn))
        return self.opened[-1]

    def rows(self, table: Table) -> Sequence[Mapping[str, object]]:
        return rows(self.dsn, table)

    def exists(self, table: Table) -> bool:
        return exists(self.dsn, table)


class TestPostgresPartitionStore(PartitionStoreContract):
    @pytest.fixture(autouse=True)
    def empty_replica(self, replica_dsn: str) -> Iterator[None]:
        self.dsn = replica_dsn
        self.opened: list[PartitionStore] = []
        yield
        for opened in self.opened:
            opened.close()

    def open_store(self) -> PartitionStore:
        self.opened.append(PostgresPartitionStore(sink_settings(self.dsn)))
        return self.opened[-1]

    def rows(self, table: Table) -> Sequence[Mapping[str, object]]:
        return rows(self.dsn, table)
