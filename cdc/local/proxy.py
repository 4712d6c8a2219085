"""A TCP proxy on the loopback address that breaks connections in chosen ways, for tests of faults.

    with Proxy(port) as proxy:
        client = connect("127.0.0.1", proxy.port)
        proxy.stall()

One thread moves all bytes. Every verb has taken effect when it returns.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Literal, Self

from cdc.errors import CdcError, Failed
from cdc.local.ports import LOOPBACK, free_ports

Way = Literal["both", "to_server", "to_client"]

_CHUNK = 64 * 1024
_BUFFER = 4 * _CHUNK
_CONNECT_SECONDS = 2
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Flow:
    """Bytes on their way from one socket to the other, each chunk with the time it is due."""

    def __init__(self, way: Way, source: socket.socket, sink: socket.socket) -> None:
        self.way = way
        self.source = source
        self.sink = sink
        self.chunks: deque[tuple[float, bytes]] = deque()
        self.held = 0
        self.ended = False
        self.closed = False

    def receive(self, due: float) -> None:
        data = self.source.recv(_CHUNK)
        if not data:
            self.ended = True
        else:
            self.chunks.append((due, data))
            self.held += len(data)

    def send(self) -> None:
        due, data = self.chunks.popleft()
        sent = self.sink.send(data)
        self.held -= sent
        if sent < len(data):
            self.chunks.appendleft((due, data[sent:]))

    def close_if_done(self) -> None:
        if self.ended and not self.chunks and not self.closed:
            self.closed = True
            with suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)


class Proxy:
    """Forwards connections on ``port`` to ``target``, a loopback port; runs until ``close``."""

    def __init__(self, target: int, port: int | None = None) -> None:
        self.target = target
        self.port = free_ports(1)[0] if port is None else port
        self._flows: list[_Flow] = []
        self._stalled: set[str] = set()
        self._latency = 0.0
        self._closing = False
        # Sockets and faults belong to the thread; a verb hands it what to do, and waits.
        self._asked: SimpleQueue[tuple[Callable[[], None], Future[None]]] = SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._listener: socket.socket | None = self._listen()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def cut(self) -> None:
        """Reset every live connection, on both sides; new ones are accepted."""
        self._do(self._reset_all)

    def stall(self, way: Way = "both") -> None:
        """Move no more bytes, of old connections and new.

        The connections stay open, and senders fill their buffers.
        """
        self._do(
            lambda: self._stalled.update(("to_server", "to_client") if way == "both" else (way,))
        )

    def refuse(self) -> None:
        """Reset every live connection and refuse new ones."""
        self._do(self._stop_listening)

    def latency(self, milliseconds: float) -> None:
        """Deliver each byte this much later, in each direction."""

        def change() -> None:
            self._latency = milliseconds / 1000

        self._do(change)

    def heal(self) -> None:
        """End every fault; what was held back is delivered."""
        self._do(self._heal)

    def close(self) -> None:
        """Reset what is open and stop listening; may be repeated."""
        if self._thread.is_alive():
            self._do(self._end)
            self._thread.join()

    def _do(self, action: Callable[[], None]) -> None:
        done: Future[None] = Future()
        self._asked.put((action, done))
        try:
            self._wake.send(b"x")
            done.result(timeout=10)
        except (OSError, TimeoutError) as error:
            raise Failed("the proxy has ended") from error

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        finally:
            self._stop_listening()
            self._wake.close()
            self._woken.close()

    def _turn(self) -> None:
        now = time.monotonic()
        moving = [flow for flow in self._flows if flow.way not in self._stalled]
        readers = [flow.source for flow in moving if not flow.ended and flow.held < _BUFFER]
        waiting = [flow for flow in moving if flow.chunks]
        due = [flow.sink for flow in waiting if flow.chunks[0][0] <= now]
        later = [flow.chunks[0][0] - now for flow in waiting if flow.chunks[0][0] > now]
        listening = [] if self._listener is None else [self._listener]
        readable, writable, _ = select.select(
            [self._woken, *listening, *readers], due, [], min(later, default=None)
        )
        if self._listener in readable:
            self._accept()
        for flow in moving:
            self._move(flow, readable, writable)
        if self._woken in readable:
            self._woken.recv(1)
            action, done = self._asked.get()
            try:
                action()
            except CdcError as error:
                done.set_exception(error)
            else:
                done.set_result(None)

    def _end(self) -> None:
        self._closing = True

    def _heal(self) -> None:
        self._stalled.clear()
        self._latency = 0.0
        if self._listener is None:
            self._listener = self._listen()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._reset_all()

    def _reset_all(self) -> None:
        for flow in list(self._flows):
            self._drop(flow, reset=True)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, self.port))
        except OSError as error:
            listener.close()
            raise Failed(f"the proxy cannot listen on port {self.port}: {error}") from error
        listener.listen(128)
        return listener

    def _move(
        self, flow: _Flow, readable: list[socket.socket], writable: list[socket.socket]
    ) -> None:
        if flow not in self._flows:
            return  # dropped in this turn, together with its opposite
        try:
            if flow.source in readable:
                flow.receive(time.monotonic() + self._latency)
            if flow.sink in writable:
                flow.send()
        except OSError:
            self._drop(flow, reset=True)
            return
        flow.close_if_done()
        if all(other.closed for other in self._flows if other.source in (flow.source, flow.sink)):
            self._drop(flow, reset=False)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # the client gave up
        try:
            server = socket.create_connection((LOOPBACK, self.target), _CONNECT_SECONDS)
        except OSError:
            _close_with_reset(client)
            return
        for one in (client, server):
            one.settimeout(0)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._flows += [_Flow("to_server", client, server), _Flow("to_client", server, client)]

    def _drop(self, flow: _Flow, *, reset: bool) -> None:
        self._flows = [
            other for other in self._flows if other.source not in (flow.source, flow.sink)
        ]
        for one in (flow.source, flow.sink):
            if reset:
                _close_with_reset(one)
            else:
                one.close()


def _close_with_reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    connection.close()
