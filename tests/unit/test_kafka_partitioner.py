"""Keys land where a Java producer puts them."""

from __future__ import annotations

import pytest

from cdc.errors import Failed
from cdc.kafka.partitioner import Partitions

# Kafka's own vectors, org.apache.kafka.common.utils.UtilsTest.testMurmur2.
JAVA_HASHES = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "java_hash"), JAVA_HASHES.items())
@pytest.mark.parametrize("count", [1, 3, 12, 1000])
def test_keys_land_where_java_puts_them(key: bytes, java_hash: int, count: int) -> None:
    assert Partitions({"t": count})("t", key) == (java_hash & 0x7FFFFFFF) % count


def test_a_record_without_a_key_goes_to_partition_0_and_an_empty_key_is_a_key() -> None:
    partitions = Partitions({"t": 1000})
    assert partitions("t", None) == 0
    assert partitions("t", b"") == (275646681) % 1000


def test_a_topic_whose_count_is_not_pinned_is_an_error_and_one_added_later_is_known() -> None:
    counts: dict[str, int] = {}
    partitions = Partitions(counts)
    with pytest.raises(Failed, match="orders is not pinned"):
        partitions("orders", b"k")
    with pytest.raises(Failed, match="orders is not pinned"):
        partitions.count("orders")
    counts["orders"] = 7
    assert partitions.count("orders") == 7
    assert 0 <= partitions("orders", b"k") < 7
