"""What is asked of capture through the source's own log: fences to be judged, signals to be followed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from cdc.event import Message
from cdc.fence import FENCE_PREFIX, SIGNAL_PREFIX, Fence, Signal

log = logging.getLogger(__name__)

_REQUESTS: Mapping[str, Callable[[bytes], Fence | Signal]] = {
    FENCE_PREFIX: Fence.from_message,
    SIGNAL_PREFIX: Signal.from_message,
}


def request_of(message: Message, source: str) -> Fence | Signal | None:
    """The request for the connector with this topic prefix; None for anything else that has our prefix.

    Ours stand between transactions: those inside one only carry the log to disk.
    """
    read = _REQUESTS.get(message.prefix)
    if read is None or message.transactional:
        return None
    try:
        request = read(message.content)
    except ValueError as error:
        # Anybody may write such a message: it must not stop capture, now and at every restart.
        log.warning("a message %s at %d is ignored: %s", message.prefix, message.lsn, error)
        return None
    return request if request.source == source else None
