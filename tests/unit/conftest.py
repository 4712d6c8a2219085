"""What the unit tier shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", params=["compiled", "python"])
def both_forms(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs a file's tests twice: with the accelerators, and with the Python code that is their reference."""
    # Not at the top: this file is read before the accelerators are compiled.
    from cdc.avro import decoder, encoder
    from connectors.postgres import pgoutput, transcoder, tuples

    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            for module in (transcoder, pgoutput, encoder, decoder, tuples):
                patch.setattr(module, "native", None)
        elif transcoder.native is None:
            pytest.skip("there is no compiler here, or it is switched off")
        yield
