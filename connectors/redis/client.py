"""A connection to Redis: how it is opened, what its server must be like, and what its errors mean."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from cdc.errors import CdcError, ConfigError, Failed, Refused, Unreachable
from connectors.redis.settings import RedisSettings

_log = logging.getLogger(__name__)


def connect(settings: RedisSettings) -> redis.Redis:
    """One connection that is never opened again behind our back, to a server that is fit to be a replica.

    A server that was away may have come back with less than it had acknowledged, so whoever lost its connection has
    to claim its partitions anew.
    """
    client: redis.Redis = redis.Redis.from_url(
        settings.url,
        **_given(username=settings.username, password=settings.password),
        single_connection_client=True,
        socket_timeout=settings.timeout,
        socket_connect_timeout=min(10.0, settings.timeout),
        socket_keepalive=True,
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),
        client_name=f"cdc-{settings.connector}".replace(" ", "-"),
    )
    try:
        with translated("looking at the server"):
            _look_at(client.info())
    except BaseException:
        client.close()
        raise
    return client


def _look_at(info: Mapping[str, Any]) -> None:
    if int(info.get("cluster_enabled", 0)):
        raise Refused(
            "this is a Redis Cluster: a row, its deletion and its partition's state would stand on several nodes,"
            " where nothing is decided in one step",
            "use a server without cluster mode",
        )
    if info.get("role") == "slave":
        raise Unreachable(
            "this Redis server is a replica, which only reads", "tried again until it is promoted"
        )
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if int(info.get("maxmemory", 0)) and policy.startswith("allkeys"):
        raise Refused(
            f"maxmemory-policy is {policy}: the server would throw rows away in silence",
            "CONFIG SET maxmemory-policy noeviction",
        )
    if int(info.get("maxmemory", 0)) and policy.startswith("volatile"):
        _log.warning(
            "maxmemory-policy is %s: positions of deleted rows may be thrown away before their time",
            policy,
        )
    if not int(info.get("aof_enabled", 0)):
        _log.warning(
            "the server writes no append-only file: what it loses in a crash is applied again from the topics,"
            " as far as they still hold it (appendonly yes)"
        )


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Run a block whose client's errors leave it translated."""
    try:
        yield
    except exceptions.RedisError as error:
        raise _error(error, doing) from error
    except OSError as error:
        raise Unreachable(f"{doing}: {error}", "check that the server is up") from error


def _error(error: exceptions.RedisError, doing: str) -> CdcError:
    what = f"{doing}: {error}"
    text = str(error)
    if isinstance(error, exceptions.AuthenticationError):
        return ConfigError(what, "check connection.username and connection.password")
    if isinstance(error, exceptions.NoPermissionError):
        return ConfigError(
            what,
            "grant the user +@all on its keys, or at least +@hash +@string +@scripting +@keyspace",
        )
    if isinstance(error, exceptions.OutOfMemoryError) or "OOM" in text:
        return Unreachable(what, "give the server more memory: it is tried again")
    if text.startswith(("READONLY", "MISCONF", "NOREPLICAS", "LOADING", "MASTERDOWN", "BUSY")):
        return Unreachable(what, "tried again until the server writes")
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError):
        return Unreachable(what, "check that the server is up")
    return Failed(what, "see the server's log")


def _given(**settings: str | None) -> dict[str, str]:
    return {name: value for name, value in settings.items() if value is not None}
