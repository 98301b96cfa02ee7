"""Ask for a run over HTTP with RunsClient, the client of the extra `client`.

    pip install '.[client]'    # in the folder of its source; it is in no index
    python runs_client.py http://127.0.0.1:8080 ../requests/saw_green.json

Exit status: 0 the machine may cut, 4 it must not, 2 the request cannot be sent, 6 nobody
answered in time: send the same request again, with the same run_id; a duplicate is success. A
token of the role publish, where the API asks for one, is taken from the environment: RUNS_TOKEN.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from pipeline.client import RunsClient
from pipeline.errors import RefusedError, RmosError


async def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("api_url")
    options.add_argument("request", nargs="?", type=Path, help="JSON file; else a built-in example")
    asked = options.parse_args()
    request = asked.request.read_bytes() if asked.request else example()
    try:
        async with RunsClient(asked.api_url, token=os.environ.get("RUNS_TOKEN")) as client:
            run = await client.submit(request)
    except RefusedError as error:
        # Blocked, or in conflict: what is stored must not be cut by this request.
        print(shown(str(error)))
        return 4
    except RmosError as error:
        print(shown(str(error)))
        return error.exit_status
    print(shown(f"{run.run_id}: {run.outcome} {run.status}"))
    # The one thing to look at: a duplicate may cut, a stored run may not.
    return 0 if run.may_cut else 4


def shown(text: str) -> str:
    """Return what others wrote in ASCII, on one line: nothing in it may act on a terminal."""
    return ascii(text)[1:-1]


def example() -> dict[str, Any]:
    # Without run_id and created_at_utc the API gives both; a retry needs them, from the answer.
    return {
        "mode": "saw",
        "tool_id": "saw:veneer_160",
        "feasibility": {"risk_level": "GREEN", "score": 92.5},
        "request": {"operation": "rip", "length_mm": 600, "feed_rate_mm_min": 1800},
        "outputs": {"gcode_text": "G90\nG21\nG1 X600 F1800\nM30\n"},
    }


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
