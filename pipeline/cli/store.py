"""`rmos store`: make a store, go on with a new broker, tell about a store."""

import asyncio
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.broker.admin.groups import refuse_running_workers
from pipeline.broker.connection import describe_cluster
from pipeline.cli.options import AsJson
from pipeline.cli.views.terminal import note, print_json, print_pairs, print_text
from pipeline.disk.durable_files import supports_unnamed_files
from pipeline.disk.faults import room_of, store_faults
from pipeline.disk.store_identity import StoreIdentity, begin_epoch, create_store, read_store
from pipeline.disk.system_calls import SystemCalls
from pipeline.settings import Settings, read_settings

if TYPE_CHECKING:
    from pipeline.storage.index.run_index import RunIndex

app = typer.Typer(no_args_is_help=True, help="Make and inspect the store in RMOS_DATA_DIR.")


@app.command()
def init(
    store_id: Annotated[
        str | None, typer.Option(help="Id of a store that is rebuilt: 32 hex digits.")
    ] = None,
    epoch: Annotated[int, typer.Option(min=1, help="Epoch of a store that is rebuilt.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Make a new store in RMOS_DATA_DIR for the cluster at RMOS_BOOTSTRAP_SERVERS."""
    settings = read_settings()
    identity = create_store(
        settings.data_dir,
        cluster_id=asyncio.run(describe_cluster(settings)),
        prefix=settings.prefix,
        store_id=store_id,
        epoch=epoch,
    )
    _show(settings, identity, as_json=as_json)


@app.command("new-epoch")
def new_epoch(as_json: AsJson = False) -> None:
    """Continue with a new broker; what earlier epochs stored does not change."""
    settings = read_settings()
    cluster_id = asyncio.run(_cluster_of_idle_workers(settings))
    _show(settings, begin_epoch(settings.data_dir, cluster_id=cluster_id), as_json=as_json)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show which store it is, what it holds and how much room is left."""
    from pipeline.storage.index.run_index import open_index_to_read

    settings = read_settings()
    root = settings.data_dir
    identity = read_store(root)
    # First: without any the index cannot even be read, as SQLite makes its log beside it.
    if (room := room_of(root)).has_few_inodes:
        note(
            f"Only {room.free_inodes:,} of {room.inodes:,} inodes are left on the volume; each "
            "file of the store takes one.",
            "yellow",
        )
    with closing(open_index_to_read(root)) as index, store_faults(root):
        document = _status(root, identity, index)
    if as_json:
        print_json(document)
        return
    positions = document.pop("positions")
    print_pairs(document.items())
    for place in positions:
        print_text(f"next offset  {place['topic']}-{place['partition']}  {place['next_offset']}")


def _status(root: Path, identity: StoreIdentity, index: "RunIndex") -> dict[str, Any]:
    room = room_of(root)
    positions = index.positions(identity.epoch)
    return {
        **asdict(identity),
        "runs": index.count(),
        "free_bytes": room.free_bytes,
        "free_inodes": room.free_inodes,
        "group_commit": supports_unnamed_files(root, SystemCalls()),
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
    note(f"Store at {settings.data_dir}:")
    print_pairs(asdict(identity).items())
