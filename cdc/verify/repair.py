"""Has differing keys sent again through the stream, and looks at them once more. Never writes to the replica."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.fence import SIGNAL_PREFIX, Signal
from cdc.verify.exact import Settled, settle
from cdc.verify.inconclusive import Inconclusive
from cdc.verify.parts import Fencing


def repair(fencing: Fencing, keys: Sequence[bytes]) -> Settled:
    """Ask capture to read these keys anew, wait until the replica has what it sent, and verify the keys again.

    Capture ends a repair with a fence whose id is the signal's own. What differs still is in the result.
    """
    parts = fencing.parts
    left = Settled({}, [])
    for first in range(0, len(keys), parts.settings.keys_at_once):
        batch = tuple(keys[first : first + parts.settings.keys_at_once])
        signal = Signal(fencing.new_id(), "repair", parts.settings.source, fencing.table.id, batch)
        parts.source.emit(SIGNAL_PREFIX, signal.to_message())
        watermark = fencing.published(signal.id)
        if watermark.void:
            raise Inconclusive(f"the repair was refused: {watermark.void}")
        fencing.await_replica(watermark)
        settled = settle(fencing, batch)
        left.differing.update(settled.differing)
        left.unsettled.extend(settled.unsettled)
    return left
