"""Schemas get an id and are found by it, and what goes wrong says what to do."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest

from cdc.errors import ConfigError, Refused, Rejected, Unreachable
from cdc.kafka.registry import Registry


def schema(subject: str, *fields: dict[str, object]) -> str:
    name = subject.replace("-", "_")
    return json.dumps({"type": "record", "name": "R", "namespace": name, "fields": list(fields)})


@pytest.fixture
def subject() -> str:
    return f"orders.v/{time.time_ns()}-value"


def test_a_schema_keeps_its_id_and_is_found_by_it(registry_url: str, subject: str) -> None:
    text = schema("s" + str(time.time_ns()), {"name": "id", "type": "long"})
    first = Registry(registry_url).register(subject, text)
    registry = Registry(registry_url)
    assert registry.register(subject, text) == first
    assert json.loads(registry.schema(first)) == json.loads(text)


def test_answers_are_remembered(registry_url: str, subject: str) -> None:
    registry = Registry(registry_url)
    text = schema("m" + str(time.time_ns()), {"name": "id", "type": "long"})
    known = registry.register(subject, text)
    registry.schema(known)
    registry._servers = []
    assert registry.register(subject, text) == known
    assert registry.schema(known)


def test_an_incompatible_schema_is_refused_by_its_subject(registry_url: str) -> None:
    subject = f"refused-{time.time_ns()}"
    registry = Registry(registry_url)
    registry.register(subject, schema(subject, {"name": "id", "type": "long"}))
    request = urllib.request.Request(
        f"{registry_url}/config/{subject}",
        b'{"compatibility": "BACKWARD"}',
        {"Content-Type": "application/json"},
        method="PUT",
    )
    urllib.request.urlopen(request, timeout=10).close()
    with pytest.raises(Refused, match=subject):
        registry.register(subject, schema(subject, {"name": "other", "type": "string"}))


def test_an_unknown_id_is_rejected(registry_url: str) -> None:
    with pytest.raises(Rejected, match="no schema 99999999"):
        Registry(registry_url).schema(99_999_999)


def test_a_registry_that_is_down_is_unreachable_and_the_next_in_the_list_is_used(
    registry_url: str, subject: str
) -> None:
    text = schema("d" + str(time.time_ns()))
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:1"):
        Registry("http://user:secret@127.0.0.1:1").register(subject, text)
    assert Registry(f"http://127.0.0.1:1,{registry_url}").register(subject, text) > 0


@pytest.mark.parametrize("url", ["", "127.0.0.1:8081", "file:///etc/passwd"])
def test_what_is_no_address_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigError, match="not the address"):
        Registry(url)


def test_an_unknown_setting_and_unreadable_certificates_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no such registry setting: basic\.auth"):
        Registry("http://127.0.0.1:1", {"basic.auth": "x:y"})
    with pytest.raises(ConfigError, match="certificates cannot be read"):
        Registry("https://127.0.0.1:1", {"ssl.ca.location": "/nonexistent"})


def test_no_password_stands_in_an_error() -> None:
    with pytest.raises(Unreachable) as raised:
        Registry("http://user:secret@127.0.0.1:1").schema(1)
    assert "secret" not in str(raised.value)
