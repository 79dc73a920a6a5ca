"""The records that a program writes, and expects to read; common to clients that are not alike."""

import random
import time
from typing import NamedTuple

PARTITIONS = 3
BURST = 100  # records that one producer writes to each partition
SEGMENT_BYTES = "262144"  # so that what is written spans several segment files
PATIENCE_SECONDS = 30
START_MS = int(time.time() * 1000) - 3_600_000


class Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    headers: list


def written(partition, number):
    """The record with this number, which is its offset."""
    return Record(
        offset=number,
        timestamp=at(number),
        key=None if number % 10 == 9 else b"key-%d-%d" % (partition, number),
        # Hard to compress, and now and then empty.
        value=random.Random(partition << 32 | number).randbytes(number * 37 % 2_000),
        headers=[("number", b"%d" % number), ("number", b"again"), ("empty", b"")],
    )


def at(number):
    return START_MS + number * 1_000


def check(partition, number, seen):
    expected = written(partition, number)
    assert seen == expected, f"partition {partition}: expected {expected}, saw {seen}"


def equal(what, expected, seen):
    assert seen == expected, f"{what}: expected {expected!r}, saw {seen!r}"
