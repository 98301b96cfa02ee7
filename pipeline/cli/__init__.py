"""The `rmos` command."""

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line; end the process with the exit status of what happened."""
    if find_spec("typer") is None:
        sys.stderr.write(
            "The rmos commands need the extra server: pip install 'rmos-runs[server]'. "
            "This install has the schemas and RunPublisher only.\n"
        )
        sys.exit(2)
    from pipeline.cli.commands import run  # noqa: PLC0415  # absent from the base install

    run()
