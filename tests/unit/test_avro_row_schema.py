from __future__ import annotations

import json
from typing import Any

import fastavro
import pytest

from cdc.avro.names import avro_name, field_names, namespace, topic_name
from cdc.avro.row_schema import key_schema, message_schema, value_schema
from cdc.avro.written_schema import self_contained, table_of
from cdc.errors import Rejected
from cdc.table import Column, Table, TableId
from tests.unit.avro_bench import bench_orders
from tests.unit.avro_random import VARIABLE_DECIMAL


def back(table: Table, topic: str) -> Table:
    key = self_contained(key_schema(topic, table)) if table.key else None
    return table_of(table.id, key, self_contained(value_schema(topic, table)))


ODD = Table(
    TableId("my schema", "größe-2"),
    (
        Column("1st", "int", nullable=False, source_type="integer"),
        Column("a b", "long", nullable=True, source_type="bigint"),
        Column("a-b", "string", nullable=True, source_type="character varying(12)"),
        Column("a_b", "string", nullable=True),
        Column("naïve", VARIABLE_DECIMAL, nullable=True, source_type="numeric"),
        Column("plain", VARIABLE_DECIMAL, nullable=False, source_type="numeric"),
        Column("list", {"type": "array", "items": ["null", VARIABLE_DECIMAL]}, nullable=True),
        Column("after", VARIABLE_DECIMAL, nullable=True),
    ),
    ("a b", "1st"),
    "full",
)


def test_odd_names_become_names_that_kafka_and_avro_allow() -> None:
    assert topic_name("shop", ODD.id) == "shop.my_schema.gr__e-2"
    assert namespace("shop.my_schema.gr__e-2") == "shop.my_schema.gr__e_2"
    assert namespace("2nd.s.3t") == "_2nd.s._3t"
    assert [avro_name(n) for n in ("1st", "größe", "", "ok_1")] == ["_1st", "gr__e", "_", "ok_1"]


def test_names_that_meet_get_numbers_and_exact_ones_keep_theirs() -> None:
    assert field_names(["a b", "a-b", "a_b", "a_b_2"]) == ["a_b_3", "a_b_4", "a_b", "a_b_2"]


def test_a_table_of_odd_names_comes_back_as_it_was() -> None:
    topic = topic_name("shop", ODD.id)
    for text in (key_schema(topic, ODD), value_schema(topic, ODD)):
        fastavro.parse_schema(json.loads(text))
    assert back(ODD, topic).same_shape(ODD)


def test_a_changed_column_name_keeps_the_original_beside_it() -> None:
    row = json.loads(value_schema("t", ODD))["fields"][0]["type"][1]
    first = row["fields"][0]
    assert first["name"] == "_1st"
    assert first["type"]["connect.parameters"] == {
        "__debezium.source.column.name": "1st",
        "cdc.source.type": "integer",
    }


@pytest.mark.parametrize("identity", ["default", "full", "index", "nothing"])
def test_the_replica_identity_travels_with_the_schema(identity: str) -> None:
    table = bench_orders(identity=identity)
    assert back(table, "t").identity == identity


def test_a_not_null_column_with_a_default_has_it_in_the_field_too() -> None:
    flag = Column("flag", {"type": "boolean", "connect.default": False}, nullable=False)
    table = Table(TableId("s", "t"), (flag,), ())
    (field,) = json.loads(value_schema("t", table))["fields"][0]["type"][1]["fields"]
    assert field == {
        "name": "flag",
        "type": {"type": "boolean", "connect.default": False},
        "default": False,
    }


def test_another_connectors_source_stands_in_its_own_namespace() -> None:
    schema = json.loads(value_schema("t", bench_orders(), "mysql"))
    assert schema["fields"][2]["type"]["connect.name"] == "io.debezium.connector.mysql.Source"
    fastavro.parse_schema(json.loads(message_schema("postgresql")))


def envelope(**fields: Any) -> Any:
    schema = json.loads(value_schema("t", bench_orders()))
    schema["fields"] = [
        {**field, "type": fields.get(field["name"], field["type"])} for field in schema["fields"]
    ]
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "record", "name": "Flat", "fields": [{"name": "id", "type": "long"}]},
        "long",
        envelope(after=["null", "string"]),
        envelope(after=["null", {"type": "record", "name": "Other", "fields": []}]),
        envelope(after="nowhere.Defined"),
        {"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]},
    ],
    ids=["flat", "primitive", "no row", "two rows", "undefined", "recursive"],
)
def test_a_schema_of_no_table_is_rejected_with_a_reason(schema: Any) -> None:
    with pytest.raises(Rejected):
        table_of(TableId("s", "t"), None, self_contained(json.dumps(schema)))


def test_a_key_of_something_else_than_columns_is_rejected() -> None:
    key = {"type": "record", "name": "Key", "fields": [{"name": "shard", "type": "string"}]}
    with pytest.raises(Rejected, match="shard"):
        table_of(TableId("s", "t"), key, self_contained(value_schema("t", bench_orders())))
