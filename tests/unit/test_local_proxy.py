"""The proxy breaks connections as its verbs say, and mends them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from cdc.local.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it is sent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                return

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(echo) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def ask(client: socket.socket, data: bytes = b"hello") -> bytes:
    client.sendall(data)
    return receive(client, len(data))


def receive(client: socket.socket, size: int) -> bytes:
    read = b""
    while len(read) < size:
        part = client.recv(size - len(read))
        if not part:
            break
        read += part
    return read


def test_bytes_pass_both_ways_unchanged(proxy: Proxy) -> None:
    payload = bytes(range(256)) * 20_000  # more than every buffer on the way
    with connect(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(payload,))
        sender.start()
        assert receive(client, len(payload)) == payload
        sender.join()


def test_an_end_of_input_is_passed_on(proxy: Proxy) -> None:
    with connect(proxy) as client:
        client.sendall(b"last")
        client.shutdown(socket.SHUT_WR)
        assert receive(client, 100) == b"last"
        assert client.recv(1) == b""


def test_cut_resets_live_connections_and_accepts_new_ones(proxy: Proxy) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_stall_holds_bytes_back_until_heal(proxy: Proxy) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.stall()
        client.sendall(b"later")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(5)
        proxy.heal()
        assert receive(client, 5) == b"later"


def test_stall_of_one_way_lets_the_other_pass(echo: int) -> None:
    heard = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                if connection.recv(5) == b"hello":
                    heard.set()
                connection.sendall(b"answer")

        server = threading.Thread(target=serve)
        server.start()
        with Proxy(listener.getsockname()[1]) as proxy, connect(proxy) as client:
            proxy.stall("to_client")
            client.sendall(b"hello")
            assert heard.wait(5)
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                client.recv(1)
            proxy.heal()
            client.settimeout(5)
            assert receive(client, 6) == b"answer"
        server.join()


def test_refuse_turns_clients_away_until_heal_on_the_same_port(proxy: Proxy) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.heal()
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_latency_delays_each_direction(proxy: Proxy) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.latency(150)
        began = time.monotonic()
        assert ask(client) == b"hello"
        assert 0.3 <= time.monotonic() - began < 2


def test_a_target_that_is_down_resets_the_client_and_the_proxy_lives(echo: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()[1]
    with Proxy(dead) as proxy:
        # The reset may come before connect() returns: the client then meets it there.
        with pytest.raises(ConnectionResetError), connect(proxy) as client:
            client.recv(1)
        proxy.target = echo
        with connect(proxy) as client:
            assert ask(client) == b"hello"


def test_close_leaves_nothing_listening(echo: int) -> None:
    proxy = Proxy(echo)
    proxy.close()
    proxy.close()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
