"""`rmos archive`: old dates into tars, proved by the ledger; the program deletes nothing."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.ledger import Keys, opened_logs
from pipeline.cli.options import AsJson
from pipeline.cli.views.terminal import (
    counted,
    note,
    print_json,
    print_pairs,
    print_text,
    progress_bar,
)
from pipeline.errors import IntegrityError
from pipeline.settings import read_settings

app = typer.Typer(no_args_is_help=True)

TarFile = Annotated[Path, typer.Argument(metavar="FILE", help="Tar that create has written.")]


@app.command()
def create(
    dates: Annotated[
        list[datetime], typer.Argument(metavar="DATE...", formats=["%Y-%m-%d"], help="UTC dates.")
    ],
    to: Annotated[Path, typer.Option(metavar="FILE", help="New tar, on another disk.")],
    as_json: AsJson = False,
) -> None:
    """Archive whole dates into a tar, prove it, and print the command that removes them here.

    Nothing is removed. Killed anywhere, the same command goes on: a tar that is there is read back
    and not written again. Exit 4 if a date is archived into another tar, 5 if something of a date
    is missing or not what was stored.
    """
    from pipeline.archive.create import create_archive

    settings = read_settings()
    with progress_bar() as progress, opened_logs(settings, None) as logs:
        wanted = [f"{date:%Y-%m-%d}" for date in dates]
        made = create_archive(settings, logs, wanted, to, progress)
    tar = made.records[0].tar
    if as_json:
        print_json(
            {
                "tar": tar.model_dump(),
                "is_new": made.is_new,
                "records": [record.model_dump() for record in made.records],
                "shared_attachments": made.shared,
                "removal": made.removal,
            }
        )
        return
    print_pairs(
        [
            ("tar", tar.path),
            ("size_bytes", f"{tar.size_bytes:,}"),
            ("sha256", tar.sha256),
            *((each.date, _counted(each.artifacts, each.links)) for each in made.records),
            ("attachments", f"{made.records[0].attachments:,}"),
        ]
    )
    note("The tar was read back, and the ledger proves it. To remove what it has from the store:")
    if settings.is_shared:
        note("It takes the right to remove objects there, which no worker should have.")
    print_text(made.removal)


def _counted(artifacts: int, links: int) -> str:
    return f"{counted(artifacts, 'run')}, {counted(links, 'link')}"


@app.command()
def verify(file: TarFile, key: Keys = None, as_json: AsJson = False) -> None:
    """Prove a tar by the ledger of the store, without unpacking it; exit 5 if it is not proved."""
    from pipeline.archive.verify import open_tar, verify_tar

    with (
        opened_logs(read_settings(), key) as logs,
        progress_bar() as progress,
        open_tar(file) as opened,
    ):
        found = verify_tar(file, opened, logs, progress)
    if as_json:
        manifest = found.manifest
        print_json(
            {
                "ok": not found.faults,
                "tar": found.tar.model_dump(),
                "manifest": None if manifest is None else manifest.model_dump(),
                "recorded": [record.date for record in found.records],
                "faults": [
                    {"member": each.member or None, "reason": each.reason} for each in found.faults
                ],
            }
        )
    else:
        found.refuse()
        _show_verified(found.tar.sha256, len(found.sha256), [each.date for each in found.records])
    if found.faults:
        raise typer.Exit(IntegrityError.exit_status)


def _show_verified(sha256: str, members: int, recorded: list[str]) -> None:
    print_text(f"the ledger proves all {members:,} members; SHA-256 of the tar {sha256}")
    if recorded:
        note(f"It is the tar of the records of {', '.join(recorded)}.")
    else:
        note("The store has no record of its dates: they are not archived.")


@app.command()
def restore(file: TarFile, as_json: AsJson = False) -> None:
    """Put the files of a tar back, each as its leaf says; what is there is compared.

    Nothing is written if the ledger does not prove the tar. Exit 5 if a file is there with other
    bytes: it is not touched.
    """
    from pipeline.archive.restore import restore_archive

    with opened_logs(read_settings(), None) as logs, progress_bar() as progress:
        found = restore_archive(file, logs, progress)
    if as_json:
        print_json({"created": found.created, "same": found.same, "different": found.different})
    else:
        print_text(f"{found.created:,} created, {found.same:,} there before")
        for path in found.different:
            note(f"{path} is there with other bytes; it was not touched.", "red")
    if found.different:
        raise typer.Exit(IntegrityError.exit_status)
