"""Write the runs that must not be cut, and why, as CSV: from the files of the store alone.

    pip install '.[server]'    # in the folder of its source; it is in no index
    python blocked_runs.py /srv/rmos --date-from 2025-12-01

No broker and no API is asked. Each artifact is hashed again before its reason is written. Exit
status: 0 done, 2 a date that cannot be used, 5 a file is not what was stored, 6 no store.
"""

import argparse
import csv
import sys
from pathlib import Path

from pipeline import open_store
from pipeline.errors import RmosError
from schemas.run_filter import RunFilter


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("data_dir", type=Path)
    options.add_argument("--date-from", help="UTC date, inclusive, such as 2025-12-01")
    asked = options.parse_args()
    try:
        wanted = RunFilter.of(status="BLOCKED", date_from=asked.date_from)
    except ValueError as error:
        options.error(str(error))
    table = csv.writer(sys.stdout)
    try:
        with open_store(asked.data_dir) as store:
            table.writerow(["created_at_utc", "run_id", "tool_id", "risk_level", "block_reason"])
            for item in store.runs(wanted):
                decision = store.run(item.run_id).decision
                why = decision.block_reason or ""
                row = (item.created_at_utc, item.run_id, item.tool_id, decision.risk_level, why)
                table.writerow(map(shown, row))
    except RmosError as error:
        print(shown(str(error)), file=sys.stderr)
        return error.exit_status
    return 0


def shown(text: str) -> str:
    """Return what others wrote in ASCII, on one line: nothing in it may act on a terminal."""
    return text.encode("unicode_escape").decode("ascii")


if __name__ == "__main__":
    sys.exit(main())
