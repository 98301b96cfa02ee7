"""Run commands of `rmos` one after the other in one process; its arguments are JSON arrays."""

import json
import sys

from pipeline.cli.commands import run

for arguments in sys.argv[1:]:
    sys.stdout.write(f"$ {json.loads(arguments)[0:2]}\n")
    sys.argv = ["rmos", *json.loads(arguments)]
    try:
        run()
    except SystemExit as ended:
        sys.stdout.write(f"exit {ended.code}\n")
    sys.stdout.flush()
