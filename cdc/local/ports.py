"""Ports for servers that keep them over a restart."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from cdc.errors import Failed

LOOPBACK = "127.0.0.1"
_LOWEST = 10240
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Different ports on the loopback address that nothing listens on now.

    They lie outside the range the system gives to outgoing connections:
    within it, a client that retries while its server is down may be given the server's own port,
    and the server could not come back.
    Another process may take a port before its server does; the caller chooses again then.
    """
    usable = list(_outside_ephemeral())
    random.shuffle(usable)
    found: list[int] = []
    for port in usable:
        if is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise Failed("no free port on the loopback address", "end what listens there, and try again")


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _outside_ephemeral() -> range:
    try:
        low, high = map(int, _EPHEMERAL.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        low, high = 32768, 60999
    return max(range(_LOWEST, low), range(high + 1, 65536), key=len)
