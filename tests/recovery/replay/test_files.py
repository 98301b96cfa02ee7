"""A file is foreign where no record, no leaf and nothing that those have made explains it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.layout import attachment_path
from pipeline.core.record import RecordSource
from pipeline.core.store.files import NewFile, Presence
from pipeline.disk.contents import disk_contents
from pipeline.ledger.reader import StoreLogs
from pipeline.recovery.replay.files import FileChecks, PathDigests, find_foreign_files
from pipeline.recovery.replay.findings import Finding
from pipeline.storage.run_store import RunStore
from tests.builders import attachment, judged, red_request, run_request, sha256
from tests.ledger.ledgers import KEYS, ledger
from tests.storage.stores import change_index, files, judged_record, opened

UPLOAD = b"waits for its run"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    with opened(tmp_path, ledger=ledger(tmp_path)) as store:
        request = run_request(run_id="run_1", attachments=[attachment(b"blob")])
        store.commit([judged_record(request, 0), judged_record(red_request(run_id="run_2"), 1)])
        yield store


def foreign(
    store: RunStore, *, asked_for: bool = False, was_read: bool = False, with_ledger: bool = True
) -> list[Finding]:
    checks = FileChecks(store.store.files)
    if asked_for:
        for path in files(Path(store.name)):
            checks.asked_for.add(path)

    def read(source: RecordSource) -> bool:
        del source
        return was_read

    root = Path(store.name)
    logs = StoreLogs(disk_contents(root), KEYS) if with_ledger else None
    return list(find_foreign_files(store.store, checks, logs, read))


def blob_path(content: bytes) -> str:
    return attachment_path(sha256(content))


def put(root: Path, path: str, content: bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)


def test_two_records_that_claim_one_file_are_compared_each_by_itself(store: RunStore) -> None:
    path = "runs/2025-12-18/run_1.json"
    right = NewFile(path, (Path(store.name) / path).read_bytes())
    other = NewFile(path, right.content.replace(b"run_1", b"run_0"))
    for claims in ([right, other], [other, right]):
        checks = FileChecks(store.store.files)
        checks.look_for(claims, [blob_path(b"blob")])
        assert checks.presence_of(right) is Presence.SAME
        assert checks.presence_of(other) is Presence.DIFFERENT
        assert checks.presence_of_upload(blob_path(b"blob")) is Presence.SAME


def test_what_was_asked_for_is_explained(store: RunStore) -> None:
    assert foreign(store, asked_for=True, was_read=True) == []


def test_what_a_leaf_names_is_explained_though_its_record_is_gone(store: RunStore) -> None:
    assert foreign(store) == []
    change_index(Path(store.name), "UPDATE runs SET source_epoch=NULL, source_offset=NULL")
    assert foreign(store) == []


def test_a_quarantined_request_of_a_run_that_is_ok_is_explained(
    store: RunStore,
) -> None:
    large = {"gcode_text": "G1 X1\n" * 40_000, "gcode_path": "/jobs/17.nc"}
    store.commit([judged_record(run_request(run_id="run_3", outputs=large), 2)])
    assert len(list((Path(store.name) / "quarantine").glob("*/*/*"))) == 2
    assert foreign(store) == []


def test_without_a_ledger_the_row_explains_what_no_record_can(store: RunStore) -> None:
    assert foreign(store, with_ledger=False) == []


def test_without_a_ledger_a_row_without_a_record_explains_nothing(store: RunStore) -> None:
    change_index(Path(store.name), "UPDATE runs SET source_epoch=NULL, source_offset=NULL")
    assert {each.kind for each in foreign(store, with_ledger=False)} == {"foreign", "unreferenced"}


def test_a_row_that_no_leaf_bears_out_explains_nothing(store: RunStore) -> None:
    """Who can write files can write rows as well."""
    forged = judged(run_request(run_id="run_1", notes="forged"))
    (Path(store.name) / forged.path).unlink()
    put(Path(store.name), forged.path, forged.built.content)
    change_index(
        Path(store.name),
        "UPDATE runs SET artifact_sha256=?, source_epoch=NULL, source_offset=NULL "
        "WHERE run_id='run_1'",
        forged.artifact_sha256,
    )
    assert [(each.kind, each.path) for each in foreign(store)] == [
        ("foreign", forged.path),
        # What the forged artifact names is explained by nothing either.
        (
            "unreferenced",
            f"attachments/{sha256(b'blob')[:2]}/{sha256(b'blob')[2:4]}/{sha256(b'blob')}",
        ),
    ]


def test_a_row_of_a_record_that_was_read_explains_nothing_by_itself(store: RunStore) -> None:
    assert {each.kind for each in foreign(store, was_read=True)} == {"foreign", "unreferenced"}


@pytest.mark.parametrize(
    "path",
    [
        "runs/2025-12-18/run_foreign.json",
        "runs/2025-12-18/run_1_advisory_foreign.json",
        "runs/notes.txt",
        "quarantine/ab/cd/abcd" + "0" * 60,
        "attachments/ab/cd/abcd" + "0" * 60,
        "attachments/readme",
    ],
)
def test_any_other_file_is_foreign(store: RunStore, path: str) -> None:
    put(Path(store.name), path, b"{}")
    (finding,) = foreign(store)
    assert (finding.kind, finding.path, finding.found) == ("foreign", path, sha256(b"{}"))


def test_a_link_to_elsewhere_is_foreign(
    store: RunStore, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "file").write_bytes(b"{}")
    (Path(store.name) / "runs/2026-01-01").symlink_to(elsewhere)
    (finding,) = foreign(store)
    assert finding.path == "runs/2026-01-01"


def test_an_upload_that_waits_for_its_run_is_none(store: RunStore) -> None:
    path = blob_path(UPLOAD)
    put(Path(store.name), path, UPLOAD)
    assert foreign(store) == [Finding("unreferenced", "attachment", path)]


def test_digests_hold_what_was_added_and_nothing_else() -> None:
    digests = PathDigests()
    paths = [f"runs/2025-12-18/run_{number}.json" for number in range(1000)]
    for path in paths[:500]:
        digests.add(path)
    assert all(path in digests for path in paths[:500])
    assert not any(path in digests for path in paths[500:])
    digests.add(paths[700])
    assert paths[700] in digests
    assert paths[0] in digests
