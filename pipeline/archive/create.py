"""Archives dates: a tar, read back and proved, then a record of each date. It deletes nothing.

The procedure, with the same numbers in `create_archive`, and what is left if the process dies after
a step:

| step | if the process dies after it |
|---|---|
| 1. gather what belongs to the dates, by the ledger | nothing |
| 2. write the tar, which gets its name whole and durable | the tar |
| 3. read it back from where it lies, and prove it by the ledger | the same |
| 4. write the record of each date, once | the same, and records: what is here is still here |
| 5. read tar and records back once more, and ask what else names an attachment by now; only then \
the removal is named | the same |

The same command goes on after each of them: a tar that is there is proved and not written again, a
record that is there is compared. What a removal that was killed has left, the same removal removes.
"""

import os
import shlex
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.archive.contents import ArchiveManifest, contents_of, is_record_of, record_of
from pipeline.archive.tar import write_tar
from pipeline.archive.verify import VerifiedTar, open_tar, read_back, verify_tar
from pipeline.core.layout import BlobPath, attachment_path, parse_path
from pipeline.core.progress import Progress
from pipeline.core.store.contents import StoreContents
from pipeline.disk.durable_files import FILE_MODE
from pipeline.disk.owner import refuse_as_root
from pipeline.disk.small_files import new_file
from pipeline.errors import InputError, IntegrityError, RefusedError, input_faults
from pipeline.ledger.reader import StoreLogs
from pipeline.settings import Settings
from pipeline.storage.archives import ArchiveRecord, read_record, write_record
from pipeline.storage.index.named import named_by_others
from pipeline.storage.store import open_to_read


@dataclass(frozen=True, slots=True)
class CreatedArchive:
    """Dates that are archived.

    Attributes:
        records: Of the dates, in order.
        is_new: Whether the tar was written now.
        shared: Attachments that other dates name too; they stay. None where the tar was there.
        removal: The command that removes from the store what is in the tar.
    """

    records: Sequence[ArchiveRecord]
    is_new: bool
    shared: int | None
    removal: str


def create_archive(
    settings: Settings, logs: StoreLogs, dates: Sequence[str], path: Path, progress: Progress
) -> CreatedArchive:
    """Archive some dates of the store of the settings, which has these `logs`, into a new tar.

    Raises:
        NotFoundError: A date has no run.
        InputError: The tar cannot be written or read, or would lie in the store.
        RefusedError: A date is archived into another tar, or the tar that is there is of others.
        IntegrityError: A log or a file is not what was written, or the tar is not proved.
        StoreError: The disk or the index failed.
    """
    wanted = sorted(set(dates))
    if not settings.is_shared:
        refuse_as_root(settings.data_dir)
    _refuse_place(settings, path)
    _refuse_archived(logs.store, wanted, path)
    is_new, shared = not os.path.lexists(path), None
    if is_new:
        shared = _write(settings, logs, wanted, path, progress)  # 1. and 2.
    proved = _proved(logs, wanted, path, progress)  # 3.
    manifest = proved.manifest
    assert manifest is not None, "it is proved"
    if sorted(manifest.dates) != wanted:
        raise RefusedError(
            f"{path} is there already, and has the dates {', '.join(manifest.dates)}: name a new "
            "file."
        )
    records = [record_of(manifest, date, proved.tar) for date in wanted]
    known = {record.date: record for record in proved.records}
    for record in records:  # 4.
        if record.date not in known:
            write_record(logs.store, record)
    kept = _kept_records(logs.store, manifest, path)  # 5.
    stay = _named_by_others(settings, proved)
    removal = removal_of(settings, logs.store, path, manifest, stay)
    return CreatedArchive(kept, is_new, shared, removal)


def _refuse_place(settings: Settings, path: Path) -> None:
    if not str(path).isprintable():
        raise InputError(f"{str(path)!r} has characters that no command shows: name another file.")
    root = settings.data_dir.resolve()
    if not settings.is_shared and path.parent.resolve().is_relative_to(root):
        raise InputError(f"{path} would lie in the store, {root}: name a file on another disk.")


def _refuse_archived(store: StoreContents, dates: Sequence[str], path: Path) -> None:
    for date in dates:
        record = read_record(store, date)
        if record is not None and not os.path.lexists(path):
            raise RefusedError(
                f"The date {date} is archived already, into {record.tar.path}. Nothing was written."
            )


def _write(
    settings: Settings, logs: StoreLogs, dates: Sequence[str], path: Path, progress: Progress
) -> int:
    with closing(open_to_read(settings)) as store:
        contents = contents_of(store.index, logs, dates, progress)
    written = input_faults(f"{path} cannot be written", "; name a new file")
    with written, new_file(path, FILE_MODE) as file:
        write_tar(file, contents, logs, progress)
    return contents.shared


def _proved(logs: StoreLogs, wanted: Sequence[str], path: Path, progress: Progress) -> VerifiedTar:
    with open_tar(path) as file:
        found = verify_tar(path, file, logs, progress)
    for record in found.records:
        is_same = record.tar.sha256 == found.tar.sha256 or record.tar.path == found.tar.path
        if not is_same and record.date in wanted:
            raise RefusedError(
                f"The date {record.date} is archived already, into {record.tar.path}, and "
                f"{path} is another tar. No record was written."
            )
    found.refuse()
    return found


def _named_by_others(settings: Settings, proved: VerifiedTar) -> list[str]:
    """Return the attachments of a tar that something outside of it names by now, sorted."""
    places = map(parse_path, proved.sha256)
    blobs = [place.sha256 for place in places if isinstance(place, BlobPath)]
    with closing(open_to_read(settings)) as store, store.index.looking_up() as connection:
        return sorted(named_by_others(connection, dict.fromkeys(blobs, proved.sha256)))


def _kept_records(
    store: StoreContents, manifest: ArchiveManifest, path: Path
) -> list[ArchiveRecord]:
    """Return the records as they are in the store, each of the tar as it lies there.

    Raises:
        IntegrityError: One is not there, or says something else.
    """
    dates = sorted(manifest.dates)
    with open_tar(path) as file:
        tar = read_back(path, file)
    kept = [record for date in dates if (record := read_record(store, date)) is not None]
    is_kept = [each.date for each in kept] == dates
    if not is_kept or not all(
        each.tar.sha256 == tar.sha256 and is_record_of(each, manifest) for each in kept
    ):
        raise IntegrityError(f"{path} and the records of its dates differ. Remove nothing.")
    return kept


def _removal_from_bucket(url: str, listed: str) -> str:
    scheme, _, place = url.partition("://")
    if scheme != "s3":
        return f"{listed} | sed 's#^#{url}/#'"
    bucket, _, prefix = place.partition("/")
    key = f"{prefix}/$name" if prefix else "$name"
    # Every version: a marker would hide them, keep them, and be found by each audit. One after the
    # other: the request that removes many answers 200 with a denied one in its body.
    return (
        f"(set -o pipefail; {listed} | while read -r name; do "
        f'aws s3api list-object-versions --bucket {bucket} --prefix "{key}" --output text '
        f"--query \"[Versions,DeleteMarkers][] | [?Key=='{key}'].[VersionId]\" "
        "| while read -r version; do "
        f'aws s3api delete-object --bucket {bucket} --key "{key}" --version-id "$version" '
        "> /dev/null || exit; done || exit; done)"
    )


def removal_of(
    settings: Settings,
    store: StoreContents,
    path: Path,
    manifest: ArchiveManifest,
    stay: Sequence[str],
) -> str:
    """Return the command that removes what is in a tar but for the attachments in `stay`.

    What names an attachment goes before it, so audits are clean wherever the command is stopped,
    and it may be repeated. A run of the date that came later stays, and its folder. Names in the
    tar and URLs have letters, digits and `._-/:` alone. Of `gs://` and `az://`, whose programs
    could not be tried, it only prints what to remove, in that order.
    """
    tar = shlex.quote(str(path.absolute()))
    parts = "runs attachments" if manifest.attachments else "runs"
    listed = f"tar -tf {tar} {parts} | tac"
    if stay:
        listed += " | grep -vxF" + "".join(f" -e {attachment_path(sha256)}" for sha256 in stay)
    if settings.is_shared:
        return _removal_from_bucket(store.name, listed)
    root = shlex.quote(str(settings.data_dir.absolute()))
    folders = " -o ".join(f"-name {date}" for date in sorted(manifest.dates))
    return (
        f"cd {root} && (set -o pipefail; {listed} | xargs -d '\\n' rm -f --) && "
        f"find runs -mindepth 1 -maxdepth 1 '(' {folders} ')' -empty -delete"
    )
