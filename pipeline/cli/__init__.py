"""The `rmos` command."""

import sys
from importlib.util import find_spec

INTERRUPTED = 130
"""Exit status of a command that Ctrl-C has ended: 128 and the signal's number, as in a shell."""


def main() -> None:
    """Run the command line; end the process with the exit status of what happened."""
    if find_spec("typer") is None:
        sys.stderr.write(
            "The rmos commands need the extra server: pip install '.[server]' in the folder of the "
            "source. This install has the schemas and RunPublisher only.\n"
        )
        sys.exit(2)
    try:
        from pipeline.cli.commands import run  # absent from the base install

        run()
    except KeyboardInterrupt:
        # Also while the libraries are loaded, which takes seconds on a busy machine.
        sys.stderr.write("Stopped.\n")
        sys.exit(INTERRUPTED)


def _run_as_module() -> None:
    """Run `rmos migrate ...` for `python -m pipeline.cli.migrate ...`.

    Python imports this package before it runs such a module, with `-m` in place of the program's
    name; the module by itself would define its commands and do nothing.
    """
    if sys.argv[:1] != ["-m"]:
        return
    name = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)].removeprefix("-m")
    package, _, command = name.rpartition(".")
    if package == __name__:
        sys.argv = ["rmos", command.replace("_", "-"), *sys.argv[1:]]
        main()


_run_as_module()
