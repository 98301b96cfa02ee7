"""Every finding of stores with much damage at once: code, path, texts and order, as they were."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.audit import test_store_audit as damages
from tests.audit.audited import Audited, audit

_KNOWN = Path(__file__).with_name("findings_of_damaged_stores.txt")
"""One line a finding, after a line that names the store and the mode."""

_OF_FILES = (
    *(damages.late_link, damages.edited, damages.edited_link),
    *(damages.attachment_missing, damages.content_missing),
    *(damages.row_added, damages.added, damages.added_link, damages.added_note),
    *(damages.added_name_of_bytes, damages.added_beside_the_dates, damages.added_blob_of_no_hash),
    *(damages.added_blob_folder, damages.added_quarantine, damages.link_of_nothing),
    *(damages.copied, damages.attachment_differs, damages.quarantine_differs),
    *(damages.writable_artifact, damages.readable_quarantine, damages.writable_tile),
    *(damages.row_changed, damages.row_of_another_record, damages.row_gone),
    *(damages.row_of_an_attachment_gone, damages.link_row_of_other_content),
    *(damages.unexpected_file, damages.unexpected_file_in_a_log, damages.unexpected_report),
    *(damages.unexpected_folder_in_the_ledger, damages.tile_of_other_leaves),
)
_OF_LEAVES = (
    *(damages.not_canonical, damages.other_hash("opplan_sha256"), damages.logged_twice),
    *(damages.leaves_swapped, damages.row_of_another_hash, damages.link_row_changed),
    *(damages.row_of_withheld_bytes_gone, damages.quarantine_missing, damages.a_folder),
)
_OF_LOGS = (
    *(damages.entry_changed, damages.truncated, damages.row_changed, damages.unexpected_file),
    *(damages.tile_gone, damages.attachment_awaited, damages.link_row_gone),
)
_ELSEWHERE = (damages.future, damages.added_with_its_row, damages.elsewhere)
_WITHOUT_LOGS = (
    *(damages.waiting, damages.logs_gone, damages.edited, damages.added, damages.deleted_link),
)
_WITHOUT_INDEX = (damages.late, damages.index_gone, damages.checkpoint_gone, damages.edited)
STORES = {
    "files": _OF_FILES,
    "leaves": _OF_LEAVES,
    "logs": _OF_LOGS,
    "elsewhere": _ELSEWHERE,
    "without logs": _WITHOUT_LOGS,
    "without index": _WITHOUT_INDEX,
}


def _lines(found: Audited) -> list[str]:
    return [
        " | ".join(ascii(text)[1:-1] for text in (each.code, each.path, each.expected, each.found))
        for each in found.findings
    ]


def _known(store: str, mode: str) -> list[str]:
    sections = _KNOWN.read_text().split("# ")
    (section,) = (each for each in sections if each.startswith(f"{store}, {mode}\n"))
    return section.splitlines()[1:]


@pytest.mark.parametrize("mode", ["full", "quick"])
@pytest.mark.parametrize("name", STORES)
def test_every_finding_has_its_text_and_its_place(store: Path, name: str, mode: str) -> None:
    changes: tuple[Callable[[Path], str], ...] = STORES[name]
    for change in changes:
        change(store)
    assert _lines(audit(store, mode)) == _known(name, mode)
