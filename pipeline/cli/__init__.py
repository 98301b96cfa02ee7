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
    name; the module by itself would define its commands, or nothing, and end with status 0.
    """
    if sys.argv[:1] != ["-m"]:
        return
    name = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)].removeprefix("-m")
    module = name.removesuffix(".__main__")
    if not module.startswith(f"{__name__}."):
        return
    command = module.removeprefix(f"{__name__}.").replace("_", "-")
    if find_spec("typer") is not None:
        _refuse_without_command(module, command)
    sys.argv = ["rmos", command, *sys.argv[1:]]
    main()


def _refuse_without_command(module: str, command: str) -> None:
    """End the process with status 2 where no command has the name of the module."""
    from pipeline.cli.commands import COMMANDS  # what `rmos` imports anyway

    if command not in COMMANDS:
        its_own = [name for name, (place, _) in COMMANDS.items() if place.startswith(f"{module}:")]
        shown = [f"rmos {name}" for name in its_own] or ["rmos --help lists them all"]
        sys.stderr.write(f"{module} is no command: {', '.join(shown)}.\n")
        sys.exit(2)


_run_as_module()
