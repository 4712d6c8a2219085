from __future__ import annotations

from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc.config import ConnectorConfig
from cdc.errors import ConfigError, Failed
from cdc.table import TableId
from cdc.testing.rows import make_table
from connectors.postgres.sink_settings import (
    JDBC_SINK_DEFAULTS,
    SINK_SETTINGS,
    SinkSettings,
    conninfo,
    table_format,
)

OURS: dict[str, Any] = {setting.name: setting.default for setting in SINK_SETTINGS}


def settings(**values: Any) -> SinkSettings:
    given = {name.replace("_", "."): value for name, value in values.items()}
    config = OURS | {"connection.url": "jdbc:postgresql://h/db"} | given
    return SinkSettings.of(ConnectorConfig("sink", "postgres", "sink", "any", config))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("jdbc:postgresql://h:5/db", {"host": "h", "port": "5", "dbname": "db"}),
        ("jdbc:postgresql://h/db?user=u&password=p%26+q", {"user": "u", "password": "p& q"}),
        ("jdbc:postgresql://h/db?ssl=true", {"sslmode": "verify-full"}),
        ("jdbc:postgresql://a:1,b:2/db?targetServerType=primary", {"host": "a,b", "port": "1,2"}),
        ("jdbc:postgresql://h/db?reWriteBatchedInserts=true", {"host": "h"}),
        ("postgresql://u:p@h:5/db?sslmode=require", {"user": "u", "sslmode": "require"}),
        ("host=h dbname=db", {"host": "h", "dbname": "db"}),
    ],
)
def test_a_url_in_either_form_is_read(url: str, expected: dict[str, str]) -> None:
    assert expected.items() <= conninfo_to_dict(conninfo(url, None, None)).items()


def test_user_and_password_of_their_own_win() -> None:
    parts = conninfo_to_dict(conninfo("jdbc:postgresql://h/db?user=u&password=p", "me", "it's"))
    assert (parts["user"], parts["password"]) == ("me", "it's")


@pytest.mark.parametrize(
    "url", ["jdbc:mysql://h/db", "h", "jdbc:postgresql://h/db?socketFactory=x", "http://h/db"]
)
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        conninfo(url, None, None)


def test_our_defaults_lose_nothing() -> None:
    ours = settings()
    assert (ours.deletes, ours.truncates, ours.evolution) == (True, True, "basic")


@pytest.mark.parametrize("left_out", ["insert.mode", "primary.key.mode"])
def test_a_default_of_the_jdbc_sink_that_loses_changes_is_refused(left_out: str) -> None:
    value = {left_out.replace(".", "_"): JDBC_SINK_DEFAULTS[left_out]}
    with pytest.raises(ConfigError, match=f"set {left_out}="):
        settings(**value)


@pytest.mark.parametrize(
    ("name_format", "expected"),
    [
        ("${source.schema}.${source.table}", TableId("my.shop", "items")),
        ("copy.${source.table}_x", TableId("copy", "items_x")),
        ("${topic}", TableId("public", "p_my_shop_items")),
    ],
)
def test_a_target_is_named_by_its_format(name_format: str, expected: TableId) -> None:
    named = settings(collection_name_format=name_format)
    assert named.target(TableId("my.shop", "items"), "p.my.shop.items") == expected


@pytest.mark.parametrize("bad", ["${source.db}", "a.b.c", ""])
def test_a_format_that_names_no_table_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"known|form"):
        table_format(bad)


def test_no_property_is_named_twice() -> None:
    assert len(OURS) == len(SINK_SETTINGS)


@pytest.mark.parametrize("mode", ["record_key", "record_value"])
def test_the_key_may_be_named_and_is_held_against_that_of_the_records(mode: str) -> None:
    named = settings(primary_key_mode=mode, primary_key_fields=("b", "a"))
    named.check_key(make_table("s.items", "a", "b", "c", key=("a", "b")))
    with pytest.raises(Failed, match="have the key a"):
        named.check_key(make_table("s.items", "a", "b", key=("a",)))
    settings().check_key(make_table("s.items", "a", key=("a",)))


@pytest.mark.parametrize("mode", ["kafka", "none", "record_header", "record_value"])
def test_a_key_that_records_do_not_carry_is_refused(mode: str) -> None:
    with pytest.raises(ConfigError, match=r"primary\.key\.mode"):
        settings(primary_key_mode=mode)
