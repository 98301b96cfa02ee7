"""Ask for a run with aiokafka alone; nothing of RMOS is installed or imported.

    pip install 'aiokafka[lz4]'
    python plain_aiokafka.py 127.0.0.1:9092 ../requests/saw_green.json

Exit status: 0 the machine may cut, 4 it must not, 6 no broker, no topics, or nobody answered in
time: send the same request again, with the same run_id; a duplicate is success.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

WAIT_SECONDS = 30
STOP_SECONDS = 5


async def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("bootstrap_servers")
    options.add_argument("request", nargs="?", type=Path, help="JSON file; else a built-in example")
    options.add_argument("--prefix", default="rmos")
    asked = options.parse_args()
    # The bytes of the file are sent as they are: their content decides what is a duplicate.
    body = asked.request.read_bytes() if asked.request else json.dumps(example()).encode()
    run_id = json.loads(body)["run_id"]
    # What its errors mean is said below, in one sentence.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            event = await publish_and_wait(asked.bootstrap_servers, asked.prefix, run_id, body)
    except TimeoutError:
        print(f"{shown(run_id)}: no answer in {WAIT_SECONDS} s, send the same request again")
        return 6
    except (KafkaError, NoTopicError) as error:
        why = shown(str(error) or type(error).__name__)
        print(f"{shown(run_id)}: {why}, send the same request again")
        return 6
    reason = event.get("block_reason") or event.get("error", {}).get("code", "")
    print(shown(f"{run_id}: {event['outcome']} {event.get('status', '')} {reason}".rstrip()))
    # The one thing to look at: a duplicate may cut, a stored run may not.
    return 0 if event["may_cut"] is True else 4


class NoTopicError(Exception):
    """The broker has no such topic: another prefix, or `rmos topics apply` was not run."""


async def publish_and_wait(servers: str, prefix: str, run_id: str, body: bytes) -> dict[str, Any]:
    events = AIOKafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed")
    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        max_request_size=5 * 1024 * 1024,
    )
    try:
        await events.start()
        topic, requests = f"{prefix}.runs.events", f"{prefix}.runs.requests"
        missing = {topic, requests} - await events.topics()
        if missing:
            message = f"the broker has no topic {min(missing)}"
            raise NoTopicError(message)
        await producer.start()
        # Stand at the end of the events before the request is sent, or its event may be missed.
        numbers = await producer.partitions_for(topic)
        partitions = [TopicPartition(topic, number) for number in numbers]
        ends = await events.end_offsets(partitions)
        events.assign(partitions)
        for partition, offset in ends.items():
            events.seek(partition, offset)
        # The key is the run_id: all that concerns a run is in one partition, in order.
        sent = await producer.send_and_wait(requests, body, run_id.encode())
        own = {"topic": sent.topic, "partition": sent.partition, "offset": sent.offset}
        return await event_of(events, own)
    finally:
        await events.stop()
        with contextlib.suppress(TimeoutError):
            # A producer that stops tries for ever to send what it holds.
            await asyncio.wait_for(producer.stop(), STOP_SECONDS)


async def event_of(events: AIOKafkaConsumer, own: dict[str, Any]) -> dict[str, Any]:
    """Wait for the event of our own offset: another one of the same run_id is not the answer."""
    async for record in events:
        event = json.loads(record.value)
        if event["source"] == own:
            return event
    message = "the events end"
    raise NoTopicError(message)


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
    sys.exit(asyncio.run(main()))
