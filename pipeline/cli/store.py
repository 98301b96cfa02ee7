"""`rmos store`, `rmos index`, `rmos attachments`: a store without a worker."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.broker.admin.groups import refuse_running_workers
from pipeline.broker.connection import describe_cluster
from pipeline.cli.options import AsJson, AsNdjson
from pipeline.cli.views.terminal import (
    counted,
    note,
    note_first,
    print_json,
    print_pairs,
    print_table,
    print_text,
    progress_bar,
)
from pipeline.core.store.identity import StoreIdentity
from pipeline.disk.store_identity import read_store
from pipeline.disk.volume import has_group_commit, room_of
from pipeline.errors import IntegrityError, StoreNotReadyError, input_faults
from pipeline.settings import Settings, read_settings
from pipeline.storage.contents import in_extra_scale, opened_contents

if TYPE_CHECKING:
    from pipeline.bucket.probe import Answer
    from pipeline.recovery.rebuild.index import RebuildReport
    from pipeline.storage.store import Store

SHOWN_OF_A_KIND = 10
"""Most lines about one kind of finding; after a new broker every older run is such a finding."""

app = typer.Typer(no_args_is_help=True)


@app.command()
def init(
    store_id: Annotated[
        str | None, typer.Option(help="Id of a store that is rebuilt: 32 hex digits.")
    ] = None,
    epoch: Annotated[int, typer.Option(min=1, help="Epoch of a store that is rebuilt.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Make a new store in RMOS_DATA_DIR for the cluster at RMOS_BOOTSTRAP_SERVERS.

    With RMOS_STORE_URL and RMOS_INDEX_URL it is in a bucket, which is asked six questions before,
    with its index in a database, which gets its tables.
    """
    from pipeline.storage.store import create

    settings = read_settings()
    identity = create(
        settings,
        cluster_id=asyncio.run(describe_cluster(settings)),
        store_id=store_id,
        epoch=epoch,
    )
    _show(settings, identity, as_json=as_json)


@app.command("new-epoch")
def new_epoch(as_json: AsJson = False) -> None:
    """Continue with a new broker; what earlier epochs stored does not change."""
    from pipeline.storage.store import begin_epoch

    settings = read_settings()
    cluster_id = asyncio.run(_cluster_of_idle_workers(settings))
    _show(settings, begin_epoch(settings, cluster_id=cluster_id), as_json=as_json)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the identity of the store, its contents and, of a disk, the free space."""
    from pipeline.storage.store import open_to_read

    settings = read_settings()
    if not settings.is_shared:
        _warn_of_few_inodes(settings.data_dir)
    with closing(open_to_read(settings)) as store, store.faults():
        document = _status(store, {} if settings.is_shared else _volume(settings.data_dir))
    if as_json:
        print_json(document)
        return
    positions = document.pop("positions")
    print_pairs(document.items())
    for place in positions:
        print_text(f"next offset  {place['topic']}-{place['partition']}  {place['next_offset']}")


def _warn_of_few_inodes(root: Path) -> None:
    """Warn before anything is opened: SQLite makes its log beside the index."""
    read_store(root)
    if (room := room_of(root)).has_few_inodes:
        note(
            f"Only {room.free_inodes:,} of {room.inodes:,} inodes are left on the volume; each "
            "file of the store takes one.",
            "yellow",
        )


def _volume(root: Path) -> dict[str, Any]:
    """Return what a store on a disk has besides."""
    room = room_of(root)
    return {
        "free_bytes": room.free_bytes,
        "free_inodes": room.free_inodes,
        "group_commit": has_group_commit(root),
    }


def _status(store: "Store", volume: dict[str, Any]) -> dict[str, Any]:
    from pipeline.storage.archives import Archives

    positions = store.index.positions(store.identity.epoch)
    return {
        **asdict(store.identity),
        "runs": store.index.count(),
        "archived_dates": len(Archives(store).dates()),
        **volume,
        "positions": [
            {"topic": topic, "partition": partition, "next_offset": offset}
            for (topic, partition), offset in sorted(positions.items())
        ],
    }


async def _cluster_of_idle_workers(settings: Settings) -> str:
    await refuse_running_workers(settings, "they would go on in the old epoch")
    return await describe_cluster(settings)


def _show(settings: Settings, identity: StoreIdentity, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(identity))
        return
    note(f"Store at {settings.store_url or settings.data_dir}:")
    print_pairs(asdict(identity).items())


@app.command("check")
def check_bucket(
    url: Annotated[
        str,
        typer.Option(
            metavar="s3://BUCKET/PREFIX", help="Or gs://, az://. Keys: the cloud's own variables."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Ask a bucket six questions about its promises; exit 6 if it could not keep a store.

    The questions are asked of objects with a random name in its folder ledger, which are removed.
    """
    answers = _asked(url)
    if as_json:
        print_json({"url": url, "questions": [each._asdict() for each in answers]})
    else:
        rows = [[each.question, each.got, "holds" if each.holds else "FAILS"] for each in answers]
        print_table(["question", "the bucket", ""], rows)
    if failed := [each.question for each in answers if not each.holds]:
        raise StoreNotReadyError(
            f"The bucket {url} cannot keep a store, as it fails: {', '.join(failed)}."
        )


@app.command()
def upgrade(
    index_url: Annotated[
        str,
        typer.Option(
            metavar="postgresql://HOST/NAME", help="Passwords: libpq's PGPASSFILE or PGPASSWORD."
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the scripts that a database lacks to keep an index: all of them, or none.

    Each is shown with what it does. Scripts only add, so workers of the version before may go on.
    """
    with in_extra_scale("PostgreSQL needs"):
        from pipeline.postgres.connections import name_of
        from pipeline.postgres.scripts import missing_scripts, run_scripts
    name = name_of(index_url)
    scripts = missing_scripts(index_url) if dry_run else run_scripts(index_url)
    if as_json:
        shown = [{"number": each.number, "what": each.what} for each in scripts]
        print_json({"index": name, "dry_run": dry_run, "scripts": shown})
        return
    for script in scripts:
        print_text(f"{'would run' if dry_run else 'ran'} script {script.number}: {script.what}")
    if not scripts:
        print_text(f"{name} has all scripts of this version")


def _asked(url: str) -> "list[Answer]":
    with in_extra_scale("Buckets need"):
        from pipeline.bucket.connection import Connection
        from pipeline.bucket.probe import ask_bucket
    from pipeline.bucket.url import parse_bucket_url

    return ask_bucket(Connection(parse_bucket_url(url)))


index_app = typer.Typer(no_args_is_help=True)


@index_app.command()
def rebuild(as_json: AsJson = False) -> None:
    """Make a new index from files, ledger and request topics; the files are not touched.

    Stop the workers first; those of a store that many hosts share wait meanwhile. Exit 5 if files
    are missing, unexpected, or explained by no leaf and no record: they get their rows all the
    same, so that every later check finds them. Nothing is written if a file differs from its leaf.
    """
    from pipeline.recovery.rebuild.index import rebuild_index

    settings = read_settings()
    with progress_bar() as progress:
        report = asyncio.run(rebuild_index(settings, progress))
    if as_json:
        print_json(asdict(report))
    else:
        _show_rebuilt(report)
    if not report.is_clean:
        raise typer.Exit(IntegrityError.exit_status)


@index_app.command()
def check(as_json: AsJson = False) -> None:
    """Compare the index with every file, by hash; exit 5 if they differ."""
    from pipeline.storage.index_check import archived_paths, check_index
    from pipeline.storage.store import open_to_read

    with closing(open_to_read(read_settings())) as store:
        with progress_bar() as progress:
            differences = list(check_index(store, store.index, progress))
        runs, advisories = store.index.count(), store.index.count_advisories()
        archived = sum(1 for _ in archived_paths(store, store.index))
    if as_json:
        counts = {"runs": runs, "advisories": advisories, "archived": archived}
        print_json({**counts, "differences": [asdict(each) for each in differences]})
    elif differences:
        rows = [[each.path, each.expected, each.found] for each in differences]
        print_table(["path", "expected", "found"], rows)
    else:
        tars = f"; {counted(archived, 'file')} archived" if archived else ""
        print_text(f"{_runs(runs, advisories)} as the index says{tars}")
    if differences:
        raise typer.Exit(IntegrityError.exit_status)


def _show_rebuilt(report: "RebuildReport") -> None:
    print_text(f"{_runs(report.runs, report.advisories)} in the new index")
    if report.archived:
        note(f"{counted(report.archived, 'file')} archived, with rows made of their records")
    sentences: dict[str, Sequence[object]] = {
        "no leaf and no record explains its file": report.without_record,
        "its file is missing or has other bytes": report.without_file,
        "no leaf and no record explains its link": report.links_without_record,
        "its link has other bytes": report.links_changed,
        "the advise worker will link it": report.links_to_make,
    }
    kinds = [[f"{each}: {why}" for each in found] for why, found in sentences.items()]
    kinds.append([f"{file.path}: {file.reason}" for file in report.unexpected])
    lost = "the ledger names it, no file and no record does: it has no row"
    kinds.append([f"{each}: {lost}" for each in report.lost])
    for lines in kinds:
        note_first(lines, SHOWN_OF_A_KIND)


def _runs(runs: int, advisories: int) -> str:
    both = counted(runs, "run"), counted(advisories, "advisory")
    return ", ".join(both) if advisories else both[0]


attachments_app = typer.Typer(no_args_is_help=True)


@attachments_app.callback()
def _group() -> None:
    """Stay a group, whatever the number of its commands."""


@attachments_app.command()
def put(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    as_json: AsNdjson = False,
) -> None:
    """Store files under their SHA-256, and print it; a blob that exists already is success."""
    from pipeline.storage.attachments import AttachmentFiles, stored_answer

    created = 0
    with opened_contents(read_settings()) as contents:
        store = AttachmentFiles(contents.files)
        for file in files:
            with input_faults(f"{file} cannot be read"):
                stored = store.put(file)
            created += stored.created
            if as_json:
                print_json(stored_answer(stored))
            else:
                print_text(f"{stored.sha256}  {file}")
    if as_json:
        print_json({"summary": {"created": created, "exists": len(files) - created}})
    else:
        note(f"{created:,} created, {len(files) - created:,} there before")
