"""Pipelines for scenario tests."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.scenario.logs import assert_tidy
from tests.scenario.pipeline import Pipeline

MakePipeline = Callable[..., Pipeline]


@contextmanager
def pipelines(folder: Path, **usual: Any) -> Iterator[MakePipeline]:
    """Makes pipelines, not started, each in a folder of its own; at the end they are killed and their logs looked at."""
    with ExitStack() as made:
        numbers = itertools.count(1)

        def make(**settings: Any) -> Pipeline:
            place = folder / f"pipeline-{next(numbers)}"
            place.mkdir()
            pipeline = Pipeline(place, **{**usual, **settings})
            made.callback(assert_tidy, pipeline.log)
            made.callback(pipeline.kill)
            return pipeline

        yield make


@pytest.fixture
def make_pipeline(
    tmp_path: Path,
    source_dsn: str,
    replica_dsn: str,
    kafka: str,
    registry_url: str,
    prefix: str,
) -> Iterator[MakePipeline]:
    """Makes pipelines over this test's databases."""
    with pipelines(
        tmp_path,
        source_dsn=source_dsn,
        replica_dsn=replica_dsn,
        kafka=kafka,
        registry_url=registry_url,
        prefix=prefix,
    ) as make:
        yield make


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of a randomised test: fixed by the test's name, printed, changed with CDC_SEED."""
    chosen = int(os.environ.get("CDC_SEED", zlib.crc32(request.node.name.encode()) % 10_000))
    print(f"seed {chosen} (repeat with CDC_SEED={chosen})")
    return chosen
