"""Ask for a run with aiokafka alone; nothing of RMOS is installed or imported.

    pip install 'aiokafka[lz4]'
    python plain_aiokafka.py 127.0.0.1:9092 ../requests/saw_green.json

Exit status: 0 the machine may cut, 4 it must not, 6 nobody answered in time: send the same
request again, with the same run_id; a duplicate is success. Where the broker goes away while the
request is on its way, aiokafka tries for ever; `run_publisher.py` gives up after 30 s.
"""

import argparse
import asyncio
import json
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

WAIT_SECONDS = 30


async def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("bootstrap_servers")
    options.add_argument("request", nargs="?", type=Path, help="JSON file; else a built-in example")
    options.add_argument("--prefix", default="rmos")
    asked = options.parse_args()
    # The bytes of the file are sent as they are: their content decides what is a duplicate.
    body = asked.request.read_bytes() if asked.request else json.dumps(example()).encode()
    run_id = json.loads(body)["run_id"]
    event = await publish_and_wait(asked.bootstrap_servers, asked.prefix, run_id, body)
    if event is None:
        print(f"{run_id}: no answer in {WAIT_SECONDS} s, send the same request again")
        return 6
    reason = event.get("block_reason") or event.get("error", {}).get("code", "")
    print(f"{run_id}: {event['outcome']} {event.get('status', '')} {reason}".rstrip())
    # The one thing to look at: a duplicate may cut, a stored run may not.
    return 0 if event["may_cut"] is True else 4


async def publish_and_wait(
    servers: str, prefix: str, run_id: str, body: bytes
) -> dict[str, Any] | None:
    events = AIOKafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed")
    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        max_request_size=5 * 1024 * 1024,
    )
    async with events, producer:
        # Stand at the end of the events before the request is sent, or its event may be missed.
        topic = f"{prefix}.runs.events"
        numbers = await producer.partitions_for(topic)
        partitions = [TopicPartition(topic, number) for number in numbers]
        ends = await events.end_offsets(partitions)
        events.assign(partitions)
        for partition, offset in ends.items():
            events.seek(partition, offset)
        # The key is the run_id: all that concerns a run is in one partition, in order.
        sent = await producer.send_and_wait(f"{prefix}.runs.requests", body, run_id.encode())
        own = {"topic": sent.topic, "partition": sent.partition, "offset": sent.offset}
        return await event_of(events, own)


async def event_of(events: AIOKafkaConsumer, own: dict[str, Any]) -> dict[str, Any] | None:
    """Wait for the event of our own offset: another one of the same run_id is not the answer."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            async for record in events:
                event = json.loads(record.value)
                if event["source"] == own:
                    return event
    except TimeoutError:
        pass
    return None


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
    sys.exit(asyncio.run(main()))
