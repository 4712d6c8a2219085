"""How to reach a Kafka cluster, and what its client library says by itself: its log and its error callback."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from cdc.errors import CdcError, ConfigError
from cdc.kafka import codes
from cdc.kafka.errors import translate
from cdc.telemetry import QuietRepeats

_THREAD = re.compile(r"^\[thrd:[^\]]*\]:\s*")
_TIMES = re.compile(r"\s*\(after \d+ms in state \w+[^)]*\)")
_AUTHENTICATION = (codes.AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)
_AUTHENTICATION_ATTEMPTS = 3
_PROBING = 0.3  # seconds


@dataclass(frozen=True)
class Cluster:
    """The address of a cluster, and client settings by librdkafka's names (``security.protocol``, ``sasl.*``, …)."""

    bootstrap: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, watch: ClientWatch, own: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of one client. ``own`` are those that correctness stands on: nothing overrides them."""
        return {
            "reconnect.backoff.max.ms": 1000,
            "socket.keepalive.enable": True,
            **self.options,
            **own,
            "bootstrap.servers": self.bootstrap,
            "error_cb": watch.on_error,
            "logger": CLIENT_LOG,
        }


class ClientWatch:
    """What one client reported outside of any call.

    ``outage`` is the reason why no broker is reachable, empty when one is; the client goes on trying by itself.
    A broker that dies while a connection is authenticated looks like a wrong password, so that is believed only
    after several attempts in a row.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._failure: CdcError | None = None
        self._fatal: CdcError | None = None
        self._refused_logins = 0
        self.outage = ""
        self.last_error: KafkaError | None = None

    def on_error(self, error: KafkaError) -> None:
        """The client's error callback; called from inside its poll."""
        self.last_error = error
        code = error.code()
        if error.fatal():
            self.on_fatal(error)
        elif code in _AUTHENTICATION:
            self._refused_logins += 1
            if self._refused_logins >= _AUTHENTICATION_ATTEMPTS:
                self.fail(translate(error, self._doing))
        elif code == codes.ALL_BROKERS_DOWN:
            self.outage = error.str()

    def on_fatal(self, error: KafkaError | KafkaException) -> None:
        """The client gave up. A failure that says what it met is to be told instead, also if it comes later."""
        if self._fatal is None:
            self._fatal = translate(error, self._doing)

    def on_success(self) -> None:
        """A broker answered."""
        self.outage = ""
        self._refused_logins = 0

    def away(self, client: Any) -> str:
        """Why no broker can be reached now, empty when one can; where that is in doubt they are asked. For any thread."""
        if self.outage:
            with suppress(KafkaException):
                client.list_topics(timeout=_PROBING)
                self.outage = ""
        return self.outage

    def fail(self, error: CdcError) -> None:
        """Remember the first failure that nothing can follow."""
        if self._failure is None:
            self._failure = error

    @property
    def failed(self) -> bool:
        """Whether the client is done for."""
        return self._failure is not None or self._fatal is not None

    @property
    def explained(self) -> bool:
        """Whether it is known what it failed at."""
        return self._failure is not None

    def check(self) -> None:
        """Raise the failure, if there was one; every time anew."""
        if self._failure is not None:
            raise self._failure
        if self._fatal is not None:
            raise self._fatal


def override_checked(overrides: Mapping[str, Any], fixed: Mapping[str, Any], prefix: str) -> None:
    """ConfigError when pass-through settings touch one that correctness stands on."""
    for name in overrides:
        if name in fixed:
            raise ConfigError(
                f"{prefix}{name} cannot be set", f"leave it out: it is always {fixed[name]}"
            )


class _Plain(logging.Filter):
    """Strips thread names and times from the client's lines, so that repeats are recognised as such."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and len(record.args) == 3:  # facility, client, text
            facility, _, text = record.args
            if facility == "CONFWARN" and "enable.gapless.guarantee" in str(text):
                return False  # chosen knowingly, see writer.py
            record.msg, record.args = "%s", (_TIMES.sub("", _THREAD.sub("", str(text))),)
        return True


def _client_log() -> logging.Logger:
    log = logging.getLogger("cdc.kafka.client")
    if not log.filters:
        log.addFilter(_Plain())
        log.addFilter(QuietRepeats())
    return log


CLIENT_LOG = _client_log()
"""Where the client library's own lines go."""
