"""Ask for a run with a client based on librdkafka; nothing of RMOS is installed or imported.

    pip install confluent-kafka
    python confluent_kafka_producer.py 127.0.0.1:9092 ../requests/saw_green.json

Exit status: 0 the machine may cut, 4 it must not, 6 no broker, no topics, or nobody answered in
time: send the same request again, with the same run_id; a duplicate is success.
"""

import argparse
import json
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

WAIT_SECONDS = 30


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("bootstrap_servers")
    options.add_argument("request", nargs="?", type=Path, help="JSON file; else a built-in example")
    options.add_argument("--prefix", default="rmos")
    asked = options.parse_args()
    # The bytes of the file are sent as they are: their content decides what is a duplicate.
    body = asked.request.read_bytes() if asked.request else json.dumps(example()).encode()
    run_id = json.loads(body)["run_id"]
    # librdkafka wants a group's name; partitions are assigned by hand, so no group is joined.
    own = {"group.id": "not-used", "enable.auto.commit": False}
    events = Consumer({**connection(asked.bootstrap_servers), **own})
    try:
        from_now_on(events, f"{asked.prefix}.runs.events")
        partitions_of(events, f"{asked.prefix}.runs.requests")
        sent = publish(asked.bootstrap_servers, f"{asked.prefix}.runs.requests", run_id, body)
        event = event_of(events, sent)
    except KafkaException as error:
        print(f"{shown(run_id)}: {shown(error.args[0].str())}, send the same request again")
        return 6
    finally:
        events.close()
    if event is None:
        print(f"{shown(run_id)}: no answer in {WAIT_SECONDS} s, send the same request again")
        return 6
    reason = event.get("block_reason") or event.get("error", {}).get("code", "")
    print(shown(f"{run_id}: {event['outcome']} {event.get('status', '')} {reason}".rstrip()))
    # The one thing to look at: a duplicate may cut, a stored run may not.
    return 0 if event["may_cut"] is True else 4


def publish(servers: str, topic: str, run_id: str, body: bytes) -> Message:
    """Send the request and return its delivery report: partition and offset."""
    reports: list[Message] = []

    def delivered(error: Any, message: Message) -> None:
        if error is not None:
            raise KafkaException(error)
        reports.append(message)

    producer = Producer(
        {
            **connection(servers),
            # Must be set: librdkafka's own default puts a run_id into another partition than
            # all other clients do, and what concerns a run has to be in one.
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": "lz4",
            "message.max.bytes": 5 * 1024 * 1024,
            "delivery.timeout.ms": WAIT_SECONDS * 1000,
        }
    )
    # The key is the run_id: all that concerns a run is in one partition, in order.
    producer.produce(topic, body, run_id, on_delivery=delivered)
    producer.flush()
    return reports[0]


def connection(servers: str) -> dict[str, Any]:
    """Return how to connect; its own log on standard error says nothing that we do not."""
    return {"bootstrap.servers": servers, "log_level": 0, "error_cb": lambda error: None}


def from_now_on(events: Consumer, topic: str) -> None:
    """Stand at the end of the events before the request is sent, or its event may be missed."""
    partitions = []
    for number in partitions_of(events, topic):
        _, end = events.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
        partitions.append(TopicPartition(topic, number, end))
    events.assign(partitions)


def partitions_of(events: Consumer, topic: str) -> list[int]:
    """Return the partitions of a topic, which must be there: it is never made by accident."""
    found = events.list_topics(topic, timeout=10).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    return list(found.partitions)


def event_of(events: Consumer, sent: Message) -> dict[str, Any] | None:
    """Wait for the event of our own offset: another one of the same run_id is not the answer."""
    own = {"topic": sent.topic(), "partition": sent.partition(), "offset": sent.offset()}
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        record = events.poll(0.5)
        if record is None or record.error():
            continue
        event = json.loads(record.value())
        if event["source"] == own:
            return event
    return None


def shown(text: str) -> str:
    """Return what others wrote in ASCII, on one line: nothing in it may act on a terminal."""
    return ascii(text)[1:-1]


def example() -> dict[str, Any]:
    return {
        "run_id": f"run_{uuid.uuid4().hex}",
        "created_at_utc": datetime.now(UTC).isoformat(),
        "mode": "saw",
        "tool_id": "saw:veneer_160",
        "feasibility": {"risk_level": "GREEN", "score": 92.5},
        "request": {"operation": "rip", "length_mm": 600, "feed_rate_mm_min": 1800},
        "outputs": {"gcode_text": "G90\nG21\nG1 X600 F1800\nM30\n"},
    }


if __name__ == "__main__":
    sys.exit(main())
