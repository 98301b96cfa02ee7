"""Ask for a run with RunPublisher, which the base install has.

    pip install .    # in the folder of its source; it is in no index
    python run_publisher.py 127.0.0.1:9092 ../requests/saw_green.json

Exit status: 0 the machine may cut, 4 it must not, 2 the request cannot be sent, 6 nobody
answered in time: send the same request again, with the same run_id; a duplicate is success.
"""

import argparse
import asyncio
import logging
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.broker.publisher import RunPublisher
from pipeline.errors import RmosError


async def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("bootstrap_servers")
    options.add_argument("request", nargs="?", type=Path, help="JSON file; else a built-in example")
    options.add_argument("--prefix", default="rmos")
    asked = options.parse_args()
    # The bytes of a file are sent as they are: their content decides what is a duplicate.
    request = asked.request.read_bytes() if asked.request else example()
    # What its errors mean is said by RmosError, in one sentence.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        async with RunPublisher(
            bootstrap_servers=asked.bootstrap_servers, prefix=asked.prefix
        ) as publisher:
            event = await publisher.publish_and_wait(request)
    except RmosError as error:
        print(shown(str(error)))
        return error.exit_status
    reason = event.block_reason or (event.error.code if event.error else "")
    print(shown(f"{event.run_id}: {event.outcome} {event.status or ''} {reason}".rstrip()))
    # The one thing to look at: a duplicate may cut, a stored run may not.
    return 0 if event.may_cut else 4


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
