"""The layout: every name has one path, every path of the layout has one meaning."""

from datetime import UTC, datetime

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pipeline.core.layout import (
    ArtifactPath,
    BlobArea,
    BlobPath,
    LinkPath,
    artifact_path,
    attachment_path,
    parse_path,
    quarantine_path,
)
from schemas.fields import is_run_id
from schemas.timestamps import format_timestamp

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True) | st.from_regex(
    r"[a-z0-9](_advisory_|_advisory|_|advisory|\.json|[a-z.])*", fullmatch=True
).filter(lambda name: len(name) <= 100)
HASHES = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
MOMENTS = st.integers(946_684_800, 4_102_444_799).map(
    lambda seconds: format_timestamp(datetime.fromtimestamp(seconds, UTC))
)


@settings(max_examples=200)
@given(MOMENTS, NAMES)
def test_the_path_of_an_artifact_leads_back_to_it(moment: str, run_id: str) -> None:
    assume(is_run_id(run_id))
    path = artifact_path(moment, run_id)
    assert parse_path(path) == ArtifactPath(moment[:10], run_id)
    assert str(parse_path(path)) == path


@settings(max_examples=300)
@given(NAMES, NAMES)
@example("a", "b_advisory_c")
@example("a_", "advisory_b")
@example("a_advisor", "y_advisory_b")
def test_the_path_of_a_link_leads_back_to_its_run_and_its_advisory(
    run_id: str, advisory_id: str
) -> None:
    assume(is_run_id(run_id))
    link = LinkPath("2025-12-18", run_id, advisory_id)
    assert parse_path(str(link)) == link


@settings(max_examples=100)
@given(HASHES)
def test_the_path_of_a_blob_leads_back_to_it(sha256: str) -> None:
    assert parse_path(attachment_path(sha256)) == BlobPath(BlobArea.ATTACHMENTS, sha256)
    assert parse_path(quarantine_path(sha256)) == BlobPath(BlobArea.QUARANTINE, sha256)
    assert str(parse_path(attachment_path(sha256))) == attachment_path(sha256)
    assert str(parse_path(quarantine_path(sha256))) == quarantine_path(sha256)


def test_paths_are_those_that_the_documents_show() -> None:
    sha256 = "abcd" + "0" * 60
    assert artifact_path("2025-12-18T14:03:22Z", "run_1") == "runs/2025-12-18/run_1.json"
    assert attachment_path(sha256) == f"attachments/ab/cd/{sha256}"
    assert quarantine_path(sha256) == f"quarantine/ab/cd/{sha256}"
    link = LinkPath("2025-12-18", "run_1", "adv_2")
    assert str(link) == "runs/2025-12-18/run_1_advisory_adv_2.json"


NO_PATHS = [
    "",
    "store.json",
    "index.sqlite3",
    "runs",
    "runs/2025-12-18",
    "runs/2025-12-18/",
    "runs/2025-12-18/run_1",
    "runs/2025-12-18/run_1.JSON",
    "runs/2025-12-18/.json",
    "runs/2025-12-18/-run.json",
    "runs/2025-12-18/diff.json",
    "runs/2025-12-18/attachments.json",
    "runs/2025-12-18/run_1_advisory.json",
    "runs/2025-12-18/run_1_advisory_.json",
    "runs/2025-12-18/_advisory_a.json",
    "runs/2025-12-18/run_1.json\n",
    "runs/2025-12-18\n/run_1.json",
    "runs/2025-12-1/run_1.json",
    "runs/../run_1.json",
    "/runs/2025-12-18/run_1.json",
    "./runs/2025-12-18/run_1.json",
    "runs/2025-12-18/x/run_1.json",
    "runs/2025-12-18/" + "r" * 101 + ".json",
    "attachments/ab/cd/" + "ab" * 32,
    "attachments/AB/CD/ABCD" + "0" * 60,
    "attachments/ab/cd/abcd" + "0" * 59,
    "attachments/ab/cd/abcd" + "0" * 60 + "\n",
    "attachments/abcd" + "0" * 60,
    "other/ab/cd/abcd" + "0" * 60,
]


def test_what_the_layout_does_not_know_has_no_meaning() -> None:
    assert [path for path in NO_PATHS if parse_path(path) is not None] == []
