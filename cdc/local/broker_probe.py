"""Three questions in Kafka's binary protocol, enough to tell whether a broker serves clients.

An open port is not yet a broker, and a broker is not yet a group coordinator.
Requests are the oldest versions that Kafka 4 still answers: Metadata v1, FindCoordinator v1, DescribeGroups v0
(https://kafka.apache.org/protocol). No client library is needed, and none is loaded here.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self

from cdc.errors import Unreachable

_METADATA, _FIND_COORDINATOR, _DESCRIBE_GROUPS = 3, 10, 15
_NO_TOPICS = struct.pack("!i", 0)
_GROUP = 0
_TIMEOUT_SECONDS = 3


class BrokerProbe:
    """One connection to one broker; every call may raise OSError."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def brokers(self) -> list[int]:
        """The ids of the brokers that this one knows to be up."""
        answer = self._ask(_METADATA, 1, _NO_TOPICS)
        found = []
        for _ in range(answer.integer("!i")):
            found.append(answer.integer("!i"))
            answer.text()
            answer.integer("!i")
            answer.text()
        return found

    def coordinator(self, group: str) -> tuple[str, int]:
        """Host and port of the group's coordinator; the first question makes the offsets topic.

        Raises Unreachable while there is none.
        """
        answer = self._ask(_FIND_COORDINATOR, 1, _text(group) + struct.pack("!b", _GROUP))
        answer.integer("!i")
        error = answer.integer("!h")
        answer.text()
        answer.integer("!i")
        host, port = answer.text(), answer.integer("!i")
        if error or host is None:
            raise Unreachable(f"no group coordinator yet (Kafka error {error})")
        return host, port

    def describe_group(self, group: str) -> None:
        """Return if this broker is ready as the group's coordinator.

        Raises Unreachable while it loads the group's state.
        """
        answer = self._ask(_DESCRIBE_GROUPS, 0, struct.pack("!i", 1) + _text(group))
        answer.integer("!i")
        if error := answer.integer("!h"):
            raise Unreachable(f"the group coordinator is not ready (Kafka error {error})")

    def _ask(self, key: int, version: int, body: bytes) -> _Answer:
        request = struct.pack("!hhi", key, version, 1) + _text("cdc-local") + body
        self._socket.sendall(struct.pack("!i", len(request)) + request)
        (size,) = struct.unpack("!i", self._read(4))
        return _Answer(self._read(size)[4:])  # without the correlation id

    def _read(self, count: int) -> bytes:
        read = b""
        while len(read) < count:
            part = self._socket.recv(count - len(read))
            if not part:
                raise ConnectionError("the broker closed the connection")
            read += part
        return read


class _Answer:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def integer(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._body, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def text(self) -> str | None:
        size = self.integer("!h")
        if size < 0:
            return None
        self._at += size
        return self._body[self._at - size : self._at].decode()


def _text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("!h", len(encoded)) + encoded
