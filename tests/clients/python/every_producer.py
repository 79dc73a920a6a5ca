"""Every compression codec with every acks, idempotent and not; what goes in comes out."""

import sys

from common import create_topic, produce_all, read

RECORDS = 600


def main(bootstrap):
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"]:
        for acks in ["0", "1", "all"]:
            round_trip(bootstrap, compression, acks, idempotent=False)
        round_trip(bootstrap, compression, "all", idempotent=True)
    print("all good")


def round_trip(bootstrap, compression, acks, idempotent):
    topic = f"py-{compression}-{acks}-{'idempotent' if idempotent else 'plain'}"
    create_topic(bootstrap, topic)
    # Some compress well, some not at all, some are empty.
    values = [(b"%d " % number) * (number % 97) for number in range(RECORDS)]
    offsets = produce_all(
        bootstrap,
        topic,
        [(value, None) for value in values],
        **{
            "compression.type": compression,
            "acks": acks,
            "enable.idempotence": idempotent,
            "linger.ms": 2,
            "batch.num.messages": 50,
        },
    )
    if acks != "0":
        assert offsets == list(range(RECORDS)), f"{topic}: offsets as acknowledged"
    # The reader checks each batch's CRC itself, and on closing waits for its last fetch.
    messages = read(bootstrap, topic, RECORDS, **{"check.crcs": True, "fetch.wait.max.ms": 20})
    assert [message.offset() for message in messages] == list(range(RECORDS)), topic
    assert [message.value() for message in messages] == values, topic
    assert [message.key() for message in messages] == [b"key of " + v[:20] for v in values], topic
    last = values[-1][:8]
    assert messages[-1].headers() == [("h", last), ("h", b""), ("none", None)], topic


main(sys.argv[1])
