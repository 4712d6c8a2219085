"""What differs, what the log says of a key, how large a chunk is, and what a run is called in the end."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from cdc.checkpoint import Resume, SinkCheckpoint
from cdc.event import Delivered, Op
from cdc.fence import Snapshot, Watermark
from cdc.position import Position, TopicPartition
from cdc.protocols import Bucket, Hashes
from cdc.table import KeyRange, Table
from cdc.verify.compare import Suspect, compare_buckets, compare_rows, differing_keys, merged
from cdc.verify.history import (
    UNKNOWN,
    KeyHistory,
    check_values,
    expected,
    holds_all_below,
    outside,
)
from cdc.verify.job import verify
from cdc.verify.plan import Pace
from cdc.verify.report import Difference, Report, TableReport, Verdict
from cdc.verify.settings import VerifySettings
from tests.unit.verify_world import (
    PREFIX,
    TABLE,
    TOPIC,
    Decoder,
    Replica,
    Source,
    Topics,
    Transaction,
    World,
    key_of,
)

KEY = key_of(1)


def event(
    order: int,
    after: dict[str, object] | None,
    *,
    op: Op = "u",
    unchanged: tuple[str, ...] = (),
    xid: int = 9,
    lsn: int = 100,
    partition: int = 0,
    offset: int = 0,
) -> Delivered:
    return Delivered(
        collection="public.items",
        table=TABLE,
        op=op,
        position=Position(1, lsn, order),
        xid=xid,
        key=None if op == "t" else KEY,
        before=None,
        after=None if after is None else json.dumps(after).encode(),
        unchanged=unchanged,
        other_key=None,
        topic=TOPIC,
        partition=partition,
        offset=offset,
        size=10,
    )


def decode(_: Table, row: bytes) -> Mapping[str, object]:
    values: Mapping[str, object] = json.loads(row)
    return values


START = Position(1, 0, 0)


def history(low: Position = START, upto: int = 1000) -> KeyHistory:
    return KeyHistory([KEY], low, SinkCheckpoint(PREFIX, Position(1, upto, 0)))


# --- buckets and keys ----------------------------------------------------------------------------------------


def test_runs_that_differ_in_count_or_in_either_sum_are_suspects() -> None:
    ours = [
        Bucket(b"a", 1, (1, 1)),
        Bucket(b"b", 1, (1, 1)),
        Bucket(b"c", 1, (1, 1)),
        Bucket(None, 0, (0, 0)),
    ]
    theirs = [
        Bucket(b"a", 2, (1, 1)),
        Bucket(b"b", 1, (2, 1)),
        Bucket(b"c", 1, (1, 2)),
        Bucket(None, 0, (0, 0)),
    ]
    compared = compare_buckets(b"0", ours, theirs)
    assert [suspect.key_range for suspect in compared.suspects] == [
        KeyRange(b"0", b"a"),
        KeyRange(b"a", b"b"),
        KeyRange(b"b", b"c"),
    ]
    assert (compared.equal_rows, compared.rows) == (0, 3)


def test_neighbours_are_joined_up_to_a_size_and_never_over_a_gap() -> None:
    a, b = Suspect(KeyRange(None, b"a"), 5), Suspect(KeyRange(b"a", b"b"), 5)
    far = Suspect(KeyRange(b"x", None), 1)
    assert merged([a, b, far], 10) == [Suspect(KeyRange(None, b"b"), 10), far]
    assert merged([a, b, far], 9) == [a, b, far]


@given(
    st.dictionaries(st.binary(max_size=2), st.integers(0, 2)),
    st.dictionaries(st.binary(max_size=2), st.integers(0, 2)),
)
def test_keys_differ_when_one_side_lacks_them_or_their_hashes_do(
    ours: dict[bytes, int], theirs: dict[bytes, int]
) -> None:
    def hashes(rows: dict[bytes, int]) -> Hashes:
        return Hashes(sorted(rows), [(rows[key], 0) for key in sorted(rows)])

    found = differing_keys(hashes(ours), hashes(theirs))
    assert sorted(found) == sorted(
        k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k)
    )


def test_null_and_empty_text_differ() -> None:
    difference = compare_rows({"a": None, "b": "1"}, {"a": "", "b": "1"})
    assert difference is not None
    assert (difference.kind, difference.columns) == ("changed", ("a",))
    assert compare_rows({"a": None}, {"a": None}) is None


# --- what the log says ---------------------------------------------------------------------------------------


def test_events_at_or_below_the_low_fence_and_repeats_are_left_out() -> None:
    past = history(low=Position.at_fence(1, 100))
    past.add(event(1, {"a": 1}, lsn=99))  # rows that entered at the low fence
    past.add(event(1, {"a": 2}, lsn=100))  # a commit at the fence's own LSN
    past.add(event(2, {"a": 3}, lsn=100))
    past.add(event(1, {"a": 2}, lsn=100))  # capture was started anew
    assert [(e.position.commit_lsn, e.position.total_order) for e in past.of(KEY)] == [
        (100, 1),
        (100, 2),
    ]


def test_events_beyond_the_replicas_checkpoint_are_left_out() -> None:
    past = history(upto=150)
    past.add(event(1, {"a": 1}, lsn=100))
    past.add(event(1, {"a": 2}, lsn=200))
    assert [e.position.commit_lsn for e in past.of(KEY)] == [100]


def test_without_a_position_offsets_say_what_a_replica_holds() -> None:
    at = TopicPartition(TOPIC, 0)
    checkpoint = SinkCheckpoint(PREFIX, None, offsets={at: Resume(5)})
    past = KeyHistory([KEY], START, checkpoint)
    past.add(event(1, {"a": 1}, offset=4))
    past.add(event(2, {"a": 2}, offset=5))
    assert [e.offset for e in past.of(KEY)] == [4]


def test_a_truncate_is_met_once_by_every_key() -> None:
    past = history()
    past.add(event(1, None, op="t", lsn=110))
    past.add(event(1, None, op="t", lsn=110, partition=1))
    past.add(event(1, {"a": 1}, lsn=120))
    assert [e.op for e in past.of(KEY)] == ["t", "u"]
    assert expected({"a": 0}, past.of(KEY)[:1], decode) is None


def test_rows_that_a_fence_brought_count_as_unseen_by_any_snapshot() -> None:
    snapshot = Snapshot(100, 100, frozenset())
    assert not outside(snapshot, [event(1, {}, xid=9)])
    assert outside(snapshot, [event(1, {}, xid=9), event(2, {}, xid=0)])
    assert outside(snapshot, [event(1, {}, xid=100)])


def test_unchanged_columns_keep_what_was_there_and_are_unknown_where_nothing_was() -> None:
    update = event(1, {"a": 2, "b": "?"}, unchanged=("b",))
    assert expected({"a": 1, "b": "x"}, [update], decode) == {"a": 2, "b": "x"}
    assert expected(None, [update], decode) == {"a": 2, "b": UNKNOWN}
    assert expected({"a": 1, "b": "x"}, [update, event(2, None, op="d")], decode) is None


def test_unknown_columns_are_not_compared_but_told() -> None:
    check = check_values({"a": 1, "b": UNKNOWN}, {"a": 1, "b": "x"})
    assert (check.columns, check.unknown) == ((), True)
    assert check_values({"a": 1}, {"a": 2}).columns == ("a",)


def test_values_are_compared_by_identity_not_by_pythons_equality() -> None:
    wanted = {"zero": 0.0, "nan": float("nan"), "one": 1, "list": [1.0]}
    found = {"zero": -0.0, "nan": float("nan"), "one": True, "list": [1]}
    assert check_values(wanted, found).columns == ("zero", "one", "list")


def test_a_replica_without_a_position_has_passed_a_fence_when_it_consumed_its_partitions() -> None:
    mark = Watermark(
        "f", "mark", TABLE.id, 1, 100, {(TOPIC, 0): 5, (TOPIC, 1): 0, ("shop.transaction", 0): 9}
    )

    def at(offset: int) -> SinkCheckpoint:
        return SinkCheckpoint(PREFIX, None, offsets={TopicPartition(TOPIC, 0): Resume(offset)})

    assert holds_all_below(at(5), mark, TOPIC)
    assert not holds_all_below(at(4), mark, TOPIC)


def test_a_replica_at_a_commit_with_the_fences_lsn_has_passed_it_and_below_it_has_not() -> None:
    mark = Watermark("f", "mark", TABLE.id, 1, 100, {})
    assert holds_all_below(SinkCheckpoint(PREFIX, Position(1, 100, 1)), mark, TOPIC)
    assert not holds_all_below(SinkCheckpoint(PREFIX, Position(1, 99, 7)), mark, TOPIC)


def test_a_transaction_that_stays_in_limbo_is_never_a_difference() -> None:
    """A synchronous standby is away: committed in the log, applied in the replica, shown by no snapshot."""
    world = World(random.Random(1), busy=False)
    waiting = Transaction(
        world.next_xid, [(KEY, {"id": 1, "a": 7, "b": "b1"}, ())], logged=world.lsn + 8
    )
    world.next_xid += 1
    world.lsn += 8
    world.log.append((world.lsn, waiting))
    world._capture()
    world._sink()
    assert world.replica[KEY]["a"] == 7

    class Held(Source):
        """Its snapshots show the transaction as running."""

        def _move(self) -> None:
            self.world.running[waiting.xid] = waiting
            super()._move()

    world._commit = lambda: None  # type: ignore[method-assign]
    report = verify(
        Held(world),
        Replica(world),
        lambda: Topics(world),
        Decoder(world),
        VerifySettings(PREFIX, "sink", bucket_rows=5, read_ahead=0, attempts=2),
    )
    assert (report.verdict, report.tables[0].differences) == ("INCONCLUSIVE", ())
    assert "limbo" in report.tables[0].reason


# --- pace and report -----------------------------------------------------------------------------------------


def test_chunks_grow_to_the_time_budget_and_shrink_under_load() -> None:
    pace = Pace(0.5, 1000)
    for _ in range(8):
        pace.took(pace.row_limit, pace.row_limit / 400_000)
    assert 150_000 <= pace.row_limit <= 210_000
    for _ in range(8):
        pace.took(pace.row_limit, pace.row_limit / 4_000)
    assert pace.row_limit <= 3000
    pace.took(0, 1.0)
    assert pace.row_limit % 1000 == 0


def _table(verdict: Verdict, coverage: float = 1.0) -> TableReport:
    return TableReport("public.t", verdict, "", 10, coverage, 0.1)


def test_exit_status_has_a_bit_for_each_verdict_that_occurs() -> None:
    def status(*verdicts: Verdict) -> int:
        return Report("r", 0, 1.0, tuple(map(_table, verdicts))).exit_status

    assert status("OK") == 0
    assert status("OK", "DIFF") == 16
    assert status("DIFF", "INCONCLUSIVE", "SKIPPED") == 112
    assert status() == 64


def test_the_worst_verdict_is_the_runs_own() -> None:
    tables = (_table("OK"), _table("SKIPPED"), _table("INCONCLUSIVE"))
    assert Report("r", 0, 1.0, tables).verdict == "INCONCLUSIVE"
    assert Report("r", 0, 1.0, (*tables, _table("DIFF"))).verdict == "DIFF"


def test_json_has_the_promised_keys() -> None:
    difference = Difference({"id": 1}, "changed", ("a",), {"a": "1"}, {"a": "2"}, b"\x02")
    table = TableReport("public.t", "DIFF", "", 10, 1.0, 0.1, (difference,))
    found = Report("r", 0, 1.0, (table,)).to_json()
    assert {"verdict", "coverage", "rows_compared", "seconds", "tables"} <= found.keys()
    assert {"table", "verdict", "reason", "rows_compared", "differences"} <= found["tables"][
        0
    ].keys()
    assert {"key": {"id": 1}, "kind": "changed", "columns": ["a"]}.items() <= found["tables"][0][
        "differences"
    ][0].items()
    json.dumps(found)
