"""Older stores as they lie on a disk: a file or a folder, with attachments beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.legacy.blobs import LegacyBlobs
from pipeline.legacy.source import CarriedRow, OwnRow, RefusedRow, open_source, read_source
from pipeline.legacy.v1.row import RowMark, marked
from tests.builders import attachment_ref, sha256
from tests.legacy_rows import original_v2_row, unknown_row, v1_file, v1_row
from tests.storage.stores import make_store

RUN = original_v2_row()["run_id"]


def put(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = value if isinstance(value, bytes) else json.dumps(value, indent=2).encode()
    path.write_bytes(content)
    return path


def codes(path: Path, attachments: Path | None = None) -> dict[str, str]:
    found = {}
    for row in read_source(open_source(path, attachments)):
        match row:
            case CarriedRow():
                found[row.run_id] = "carried"
            case RefusedRow():
                found[row.run_id] = row.code
            case OwnRow():
                found[row.run_id] = "ours"
    return found


def test_a_v1_file_has_its_rows_and_the_hash_of_its_bytes(tmp_path: Path) -> None:
    content = v1_file(v1_row(), unknown_row(), v1_row(run_id="run_bad", created_at_utc=None))
    path = put(tmp_path / "runs.json", content)
    source = open_source(path, None)
    assert (source.format, source.sha256) == ("v1", sha256(content))
    assert codes(path) == {
        v1_row()["run_id"]: "carried",
        unknown_row()["run_id"]: "carried",
        "run_bad": "BAD_DATE",
    }


def test_a_row_that_this_program_wrote_is_known_by_its_mark(tmp_path: Path) -> None:
    row = marked(v1_row(meta={}), RowMark("1" * 64, "2" * 64))
    path = put(tmp_path / "runs.json", v1_file(row))
    (found,) = read_source(open_source(path, None))
    assert found == OwnRow(row["run_id"], RowMark("1" * 64, "2" * 64))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("{}", "run_attachments"),
        ("{}.json", "run_attachments"),
        ("{}.nc", "run_attachments/ab/cd"),
        ("{}.tar.gz", "run_attachments"),
    ],
)
def test_contents_are_found_whatever_their_names_end_in(
    tmp_path: Path, name: str, place: str
) -> None:
    path = put(tmp_path / "runs.json", v1_file(v1_row(attachments=[attachment_ref(b"x")])))
    put(tmp_path / place / name.format(sha256(b"x")), b"x")
    (row,) = read_source(open_source(path, None))
    assert isinstance(row, CarriedRow)
    assert row.blobs == {sha256(b"x"): "as named"}
    assert [blob.content for blob in row.mapped.judged.built.blobs] == [b"x"]


@pytest.mark.parametrize("attachments", [5, True, "none", {"sha256": 1}])
def test_attachments_that_are_no_list_stay_as_they_are_and_end_nothing(
    tmp_path: Path, attachments: Any
) -> None:
    path = put(tmp_path / "runs.json", v1_file(v1_row(attachments=attachments)))
    (row,) = read_source(open_source(path, None))
    assert isinstance(row, CarriedRow)
    assert row.mapped.judged.built.document["meta"]["v1"]["attachments"] == attachments


def test_pretty_printed_json_is_stored_as_it_was_hashed(tmp_path: Path) -> None:
    value = {"b": [1, 2.5], "a": "é"}
    canonical = '{"a":"é","b":[1,2.5]}'.encode()
    path = put(tmp_path / "runs.json", v1_file(v1_row(attachments=[attachment_ref(canonical)])))
    put(tmp_path / "run_attachments" / f"{sha256(canonical)}.json", value)
    source = open_source(path, None)
    (row,) = read_source(source)
    assert isinstance(row, CarriedRow)
    assert list(row.blobs.values()) == ["pretty-printed"]
    assert [blob.content for blob in row.mapped.judged.built.blobs] == [canonical]
    assert b"".join(source.blobs.pieces(sha256(canonical))) == canonical


def test_a_content_that_is_not_what_its_name_says_is_reported_and_left(tmp_path: Path) -> None:
    path = put(tmp_path / "runs.json", v1_file(v1_row(attachments=[attachment_ref(b"x")])))
    put(tmp_path / "run_attachments" / f"{sha256(b'x')}.txt", b"y")
    source = open_source(path, None)
    (row,) = read_source(source)
    assert isinstance(row, CarriedRow)
    assert list(row.blobs.values()) == ["mismatch"]
    assert row.mapped.judged.built.blobs == ()
    with pytest.raises(InputError, match="not any more"):
        list(source.blobs.pieces(sha256(b"x")))


def test_of_two_files_of_one_name_the_right_one_counts(tmp_path: Path) -> None:
    path = put(tmp_path / "runs.json", v1_file(v1_row(attachments=[attachment_ref(b"x")])))
    put(tmp_path / "run_attachments" / f"{sha256(b'x')}.a", b"y")
    put(tmp_path / "run_attachments" / f"{sha256(b'x')}.b", b"x")
    (row,) = read_source(open_source(path, None))
    assert isinstance(row, CarriedRow)
    assert list(row.blobs.values()) == ["as named"]


def test_a_folder_of_attachments_that_is_not_there_is_refused_if_it_was_named(
    tmp_path: Path,
) -> None:
    path = put(tmp_path / "runs.json", v1_file(v1_row()))
    with pytest.raises(InputError, match="attachments folder"):
        open_source(path, tmp_path / "nowhere")


def test_a_folder_of_the_original_v2_code(tmp_path: Path) -> None:
    root = tmp_path / "data" / "runs" / "rmos"
    put(root / "2025-12-18" / f"{RUN}.json", original_v2_row())
    for advisory in ("adv_1", "adv_2"):
        value = {"advisory_id": advisory, "kind": "note"}
        put(root / "2025-12-18" / f"{RUN}_advisory_{advisory}.json", value)
    put(root / "2025-12-19" / f"run_{RUN}_advisory_adv_3.json", {"advisory_id": "adv_3"})
    put(root / "2025-12-18" / "_note.json", {})
    put(root / "2025-12-18" / "x.json.tmp", b"")
    put(root / "_index.json", {})
    put(tmp_path / "data" / "run_attachments" / f"{sha256(b'x')}.txt", b"x")
    source = open_source(root, None)
    assert source.blobs.folder == tmp_path / "data" / "run_attachments"
    assert [path.name for path in source.unexpected] == ["_note.json", "x.json.tmp"]
    (row,) = read_source(source)
    assert isinstance(row, CarriedRow)
    ids = [each["advisory_id"] for each in row.mapped.judged.built.document["advisory_inputs"]]
    assert ids == ["adv_1", "adv_2", "adv_3"]


def test_a_torn_file_of_an_advisory_stays_behind_and_its_run_does_not(tmp_path: Path) -> None:
    root = tmp_path / "rmos"
    put(root / "2025-12-18" / f"{RUN}.json", original_v2_row())
    put(root / "2025-12-18" / f"{RUN}_advisory_a.json", {"advisory_id": "a"})
    put(root / "2025-12-18" / f"{RUN}_advisory_b.json", b"{")
    (row,) = read_source(open_source(root, None))
    assert isinstance(row, CarriedRow)
    found = row.mapped.judged.built.document["advisory_inputs"]
    assert [each["advisory_id"] for each in found] == ["a"]
    (why,) = row.unread
    assert f"{RUN}_advisory_b.json" in why


def test_a_torn_advisory_that_is_mended_makes_another_message_and_one_moved_away_the_same(
    tmp_path: Path,
) -> None:
    root = tmp_path / "rmos"
    torn = root / "2025-12-18" / f"{RUN}_advisory_b.json"
    put(root / "2025-12-18" / f"{RUN}.json", original_v2_row())

    def made() -> str:
        (row,) = read_source(open_source(root, None))
        assert isinstance(row, CarriedRow)
        return row.mapped.judged.artifact_sha256

    put(torn, b"{")
    published = made()
    put(torn, {"advisory_id": "b"})
    assert made() != published
    torn.unlink()
    assert made() == published


def test_what_is_wrong_in_a_folder_is_reported_of_its_run_alone(tmp_path: Path) -> None:
    root = tmp_path / "rmos"
    put(root / "2025-12-18" / f"{RUN}.json", original_v2_row())
    put(root / "2025-12-18" / "run_broken.json", b"{")
    put(root / "2025-12-18" / "run_list.json", b"[]")
    put(root / "2025-12-18" / "run_moved.json", original_v2_row())
    put(root / "2025-12-18" / "run_lost_advisory_a.json", {"advisory_id": "a"})
    put(root / "2025-12-18" / "run_link.json", original_v2_row(run_id="run_link"))
    put(root / "2025-12-18" / "run_link_advisory_a.json", b"{")
    for date in ("2025-12-18", "2025-12-19"):
        put(root / date / "run_twice.json", original_v2_row(run_id="run_twice"))
    assert codes(root) == {
        RUN: "carried",
        "run_broken": "UNREADABLE",
        "run_list": "UNREADABLE",
        "run_moved": "BAD_RUN_ID",
        "run_lost": "NO_RUN",
        "run_link": "carried",
        "run_twice": "TWICE",
    }


def test_a_folder_that_is_no_older_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folders such as"):
        open_source(tmp_path, None)
    make_store(tmp_path / "store")
    (tmp_path / "store" / "runs").mkdir()
    for path in (tmp_path / "store", tmp_path / "store" / "runs"):
        with pytest.raises(InputError, match="store of this program"):
            open_source(path, None)


def test_names_that_are_no_text_are_refused_and_can_be_told(tmp_path: Path) -> None:
    path = put(tmp_path / "runs.json", b'{"\\ud800": {"run_id": "x"}, "a": 1}')
    assert codes(path) == {"?": "BAD_RUN_ID", "a": "UNREADABLE"}
    folder = tmp_path / "rmos" / "2025-12-18"
    folder.mkdir(parents=True)
    (folder / "run_\udcff.json").write_bytes(b"{}")
    assert codes(tmp_path / "rmos") == {"run_?": "BAD_RUN_ID"}


DATA = Path(__file__).parents[3] / "shared" / "data" / "attachments"


@pytest.mark.skipif(
    not DATA.is_dir(), reason="the shop's data (shared/data beside the repository) are not here"
)
def test_the_shops_own_json_was_hashed_in_another_form_than_it_was_stored() -> None:
    names = {path.name[:64]: path.suffix for path in DATA.rglob("*") if path.is_file()}
    blobs = LegacyBlobs(DATA)
    for name, suffix in names.items():
        assert blobs.find(name)[0] == ("pretty-printed" if suffix == ".json" else "as named")
