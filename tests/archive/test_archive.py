"""A date is archived, removed by the printed command, asked about, proved, and put back."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from pipeline.archive import create as creating
from pipeline.archive.tar import TarError, member, read_tar
from pipeline.core.json.canonical import canonical_json
from pipeline.core.layout import attachment_path
from pipeline.disk.contents import disk_contents
from pipeline.disk.system_calls import SystemCalls
from pipeline.errors import ArchivedError, InputError, IntegrityError, NotFoundError, RefusedError
from pipeline.storage.advisory_store import AdvisoryStore
from pipeline.storage.archives import read_record, write_record
from pipeline.storage.checksums import checksums_of, store_root
from pipeline.storage.index_check import check_index
from pipeline.storage.program_verdict import program_verdict
from pipeline.storage.store import open_store_to_write
from schemas.run_filter import RunFilter
from tests.archive.archived import (
    DATE,
    create,
    logs,
    reader,
    remove,
    restore,
    verify,
)
from tests.audit.audited import (
    DRAWING,
    LARGE_GCODE,
    LINK,
    LOG,
    RUN,
    Template,
    add_advisories,
    add_file,
    add_runs,
    advisory,
    advisory_record,
    audit,
    flip,
    make_audited,
    overwrite,
    run,
    run_record,
)
from tests.builders import advisory_request, attachment, sha256
from tests.ledger.ledgers import STORE_ID, in_child, ledger
from tests.storage.stores import files, kinds, make_store, opened

WAITING_TEXT = attachment_path(sha256(str(advisory_request()["content_text"])))
LATE = f"runs/{DATE}/run_late.json"
OWN = b"0\nSECTION\n2\nONLY HERE\n"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    root = tmp_path_factory.mktemp("archived") / "store"
    make_audited(root)
    drawing = attachment(OWN, created_at_utc="2025-12-18T14:00:00Z")
    add_runs(root, [run_record(run("own", attachments=[drawing]), 0, partition=3)])
    return Template(root)


@pytest.fixture
def store(template: Template, tmp_path: Path) -> Path:
    return template.copy_to(tmp_path / "store")


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    return tmp_path / "2025-12-18.tar"


def test_the_command_removes_what_is_in_the_tar_and_nothing_else(store: Path, tar: Path) -> None:
    before = files(store)
    made = create(store, tar)
    record = f"archives/{DATE}.json"
    assert files(store).keys() - before.keys() == {record}
    remove(made)
    gone = before.keys() - files(store).keys()
    own = {attachment_path(sha256(content)) for content in (OWN, LARGE_GCODE)}
    assert gone == {path for path in before if path.startswith(f"runs/{DATE}/")} | own
    # Another date names the drawing, and an advisory that waits the text of another.
    assert {attachment_path(sha256(DRAWING)), WAITING_TEXT} < files(store).keys()
    assert not (store / "runs" / DATE).exists()
    remove(made)  # one that was killed is repeated


def test_an_attachment_that_a_later_run_names_stays(store: Path, tar: Path) -> None:
    create(store, tar)
    drawing = attachment(OWN, created_at_utc="2026-03-01T14:00:00Z")
    add_runs(store, [run_record(run("new", "2026-03-01", attachments=[drawing]), 1, partition=3)])
    remove(create(store, tar))
    assert (store / attachment_path(sha256(OWN))).exists()
    assert not (store / attachment_path(sha256(LARGE_GCODE))).exists()
    assert audit(store).findings == []


def test_a_removal_that_finds_no_tar_fails_and_removes_nothing(store: Path, tar: Path) -> None:
    made = create(store, tar)
    before = files(store)
    tar.rename(tar.with_name("moved.tar"))
    with pytest.raises(subprocess.CalledProcessError):
        remove(made)
    assert files(store) == before


@pytest.mark.parametrize("name", ["old.tar", "runs/../old.tar", "link/old.tar", "../a\nb.tar"])
def test_a_place_in_the_store_or_that_cannot_be_shown_is_refused(store: Path, name: str) -> None:
    (store.parent / "link").symlink_to(store / "runs")
    before = files(store)
    place = store.parent / name if name.startswith("link") else store / name
    with pytest.raises(InputError):
        create(store, place)
    assert files(store) == before


def test_an_archived_date_is_clean_and_counted_apart(store: Path, tar: Path) -> None:
    made = create(store, tar)
    is_there = audit(store)
    assert (is_there.findings, "ARCHIVED" in is_there.report["codes"]) == ([], False)
    assert "store_root" in is_there.report
    remove(made)
    count = made.records[0].artifacts + made.records[0].links
    for mode in ("full", "quick", "sampled"):
        found = audit(store, mode)
        assert found.findings == []
        assert found.report["codes"] == {"ARCHIVED": count}
        assert f"{count:,} artifacts and links" in found.report["verdicts"]["integrity"]["reason"]
        assert "store_root" not in found.report
    assert audit(store, scope={"run_ids": ["run_0"]}).report["codes"] == {"ARCHIVED": 2}
    assert audit(store, scope={"dates": [DATE]}).report["codes"] == {"ARCHIVED": count}
    parts = [audit(store, audit_id=f"whole.part-{number}-of-2") for number in (1, 2)]
    assert [each.findings for each in parts] == [[], []]
    with opened(store) as writer:
        assert list(check_index(writer.store, writer.index)) == []


def test_without_its_record_or_of_a_later_leaf_what_is_missing_is_missing(
    store: Path, tar: Path
) -> None:
    made = create(store, tar)
    remove(made)
    add_runs(store, [run_record(run("late"), 9, partition=7)])
    late = f"runs/{DATE}/run_late.json"
    assert audit(store).findings == []
    (store / late).unlink()
    assert [(each.code, each.path) for each in audit(store).findings] == [("FILE_MISSING", late)]
    with closing(reader(store)) as runs:
        with pytest.raises(IntegrityError, match="ARTIFACT_CORRUPT"):
            runs.find("run_late")
        with pytest.raises(ArchivedError, match="RUN_ARCHIVED"):
            runs.find("run_0")
    (store / f"archives/{DATE}.json").unlink()
    assert RUN in audit(store).paths
    with closing(reader(store)) as runs, pytest.raises(IntegrityError, match="ARTIFACT_CORRUPT"):
        runs.find("run_0")


def test_what_is_there_and_differs_stays_corrupt(store: Path, tar: Path) -> None:
    create(store, tar)
    flip(store / RUN, 10)
    assert {(each.code, each.path) for each in audit(store).findings} == {("BYTES_DIFFER", RUN)}
    with closing(reader(store)) as runs, pytest.raises(IntegrityError, match="ARTIFACT_CORRUPT"):
        runs.find("run_0")
    assert restore(store, tar).different == [RUN]


def test_what_cannot_be_looked_at_is_not_archived(store: Path, tar: Path) -> None:
    """As in a folder that may not be entered, or on a disk that fails."""
    remove(create(store, tar))
    folder = store / "runs" / DATE
    folder.symlink_to(folder)
    with closing(reader(store)) as runs:
        assert not any("archived" in item for item in runs.list_runs(RunFilter()).items)
        with pytest.raises(IntegrityError, match="ARTIFACT_CORRUPT"):
            runs.find("run_0")


def test_a_link_that_is_lost_after_its_run_came_late_is_corrupt(store: Path, tar: Path) -> None:
    """Its own leaf is in the tar's logs as that of a claim, and its run's is not."""
    create(store, tar)
    claim = advisory_record(advisory(2, "run_that_has_not_come"), 4)
    add_runs(store, [run_record(run("that_has_not_come"), 9, partition=7)])
    writer = AdvisoryStore(open_store_to_write(store), ledger=ledger(store))
    with closing(writer):
        assert kinds(writer.retry_links([claim])) == ["linked"]
        (store / f"runs/{DATE}/run_that_has_not_come_advisory_adv_2.json").unlink()
        assert kinds(writer.commit([claim])) == ["ARTIFACT_CORRUPT"]


@pytest.mark.parametrize("change", ["{}", "other store", "other date"])
def test_a_record_that_is_none_covers_nothing_and_is_found(
    store: Path, tar: Path, change: str
) -> None:
    remove(create(store, tar))
    path = store / f"archives/{DATE}.json"
    record = json.loads(path.read_bytes())
    record |= {"other store": {"store_id": "1" * 32}, "other date": {"date": "2025-12-19"}}.get(
        change, {}
    )
    overwrite(path, b"{}" if change == "{}" else json.dumps(record).encode())
    found = audit(store)
    assert ("FILE_UNREADABLE", f"archives/{DATE}.json") in {
        (each.code, each.path) for each in found.findings
    }
    assert {"FILE_MISSING"} < found.codes


def _cover_all(record: dict[str, Any]) -> None:
    for log in record["logs"]:
        log["next_offset"] = 10**9


WRONG_RECORDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "later offsets": _cover_all,
    "more files": lambda record: record.update(artifacts=999),
    "more links": lambda record: record.update(links=record["links"] + 1),
    "fewer leaves": lambda record: record["logs"][0].update(size=record["logs"][0]["size"] - 1),
    "more leaves": lambda record: record["logs"][0].update(size=10**6),
    "another root": lambda record: record["logs"][0].update(root_sha256="0" * 64),
    "a log that is not there": lambda record: record["logs"][0].update(log="ledger/9/none-0"),
}


@pytest.mark.parametrize("what", WRONG_RECORDS)
def test_a_record_that_the_ledger_contradicts_hides_no_loss(
    store: Path, tar: Path, what: str
) -> None:
    made = create(store, tar)
    remove(made)
    add_runs(store, [run_record(run("late"), 9, partition=7)])
    path = store / f"archives/{DATE}.json"
    record = json.loads(path.read_bytes())
    WRONG_RECORDS[what](record)
    overwrite(path, canonical_json(record))
    (store / LATE).unlink()
    found = audit(store)
    assert {("FILE_UNREADABLE", f"archives/{DATE}.json"), ("FILE_MISSING", LATE)} <= {
        (each.code, each.path) for each in found.findings
    }
    assert audit(store, scope={"dates": ["2025-12-19"]}).findings == []
    assert verify(store, tar).faults
    with pytest.raises(IntegrityError):
        create(store, tar)


def test_a_record_of_a_date_that_was_never_archived_covers_nothing(store: Path) -> None:
    log = {"log": LOG, "next_offset": 10**9, "size": 0, "root_sha256": "0" * 64}
    record = {
        "schema_version": "rmos.archive/1",
        "store_id": STORE_ID,
        "date": DATE,
        **{"artifacts": 0, "links": 0, "attachments": 0, "logs": [log]},
        "tar": {"path": "/nope", "size_bytes": 0, "sha256": "0" * 64},
    }
    add_file(store / f"archives/{DATE}.json", canonical_json(record))
    (store / RUN).unlink()
    assert {(each.code, each.path) for each in audit(store).findings} == {
        ("FILE_UNREADABLE", f"archives/{DATE}.json"),
        ("FILE_MISSING", RUN),
    }


def test_a_log_that_is_damaged_is_found_and_contradicts_no_record(store: Path, tar: Path) -> None:
    remove(create(store, tar))
    flip(next((store / LOG / "tile/0").rglob("0*/*")), 7)
    found = audit(store)
    assert "TILE_DIFFERS" in found.codes
    assert "FILE_MISSING" not in found.codes


def test_lists_say_so_and_a_program_is_not_released(store: Path, tar: Path) -> None:
    with closing(reader(store)) as runs:
        before = runs.list_runs(RunFilter())
        program = next(each for each in before.items if each["run_id"] == "run_large")
        assert program_verdict(runs, program["gcode_sha256"]).may_cut
        remove(create(store, tar))
        after = runs.list_runs(RunFilter())
        for old, new in zip(before.items, after.items, strict=True):
            is_archived = old["artifact_path"].startswith(f"runs/{DATE}/")
            assert new == old | ({"archived": True} if is_archived else {})
        verdict = program_verdict(runs, program["gcode_sha256"])
    assert not verdict.may_cut
    assert verdict.words.startswith("DO NOT CUT: the run run_large is archived, so its artifact")


def test_duplicates_conflicts_and_advisories_are_judged_by_the_row(store: Path, tar: Path) -> None:
    remove(create(store, tar))
    with opened(store, ledger=ledger(store)) as writer:
        again = run_record(run(0), 20, partition=9)
        other = run_record(run(1, notes="changed again"), 21, partition=9)
        first = run_record(run(0), 0)
        assert kinds(writer.commit([again, other])) == ["duplicate", "RUN_CONFLICT"]
        assert kinds(writer.commit([first])) == ["persisted"]
    assert not (store / RUN).exists()
    add_advisories(store, [advisory_record(advisory(0, "run_0"), 9, partition=4)])
    assert not (store / LINK).exists()
    add_advisories(store, [advisory_record(advisory("new", "run_0"), 10, partition=4)])
    assert (store / f"runs/{DATE}/run_0_advisory_adv_new.json").exists()
    assert audit(store).findings == []


def test_sums_leave_out_what_is_archived_and_come_back(store: Path, tar: Path) -> None:
    lines, root = list(checksums_of(logs(store))), store_root(logs(store))
    before = files(store)
    remove(create(store, tar))
    left: list[str] = []
    with pytest.raises(ArchivedError, match="There is no store root"):
        left.extend(checksums_of(logs(store)))
    # The text stays, and no link that is here names it.
    gone = (f"runs/{DATE}/", sha256(OWN), sha256(LARGE_GCODE), WAITING_TEXT)
    assert left == [line for line in lines if not any(each in line for each in gone)]
    restored = restore(store, tar)
    assert (restored.same, restored.different) == (0, [])
    assert restored.created == len(lines) - len(left) - 1
    record = files(store).keys() - before.keys()
    assert record == {f"archives/{DATE}.json"}
    after = files(store)
    assert {path: after[path] for path in before} == before
    assert store_root(logs(store)) == root
    assert (store / RUN).stat().st_mode & 0o777 == 0o444
    assert audit(store).findings == []
    assert "ARCHIVED" not in audit(store).report["codes"]
    assert restore(store, tar).created == 0


def test_the_same_store_and_dates_give_the_same_tar_which_any_tar_reads(
    store: Path, tar: Path, tmp_path: Path
) -> None:
    create(store, tar)
    (store / f"archives/{DATE}.json").unlink()
    create(store, tmp_path / "again.tar")
    assert tar.read_bytes() == (tmp_path / "again.tar").read_bytes()
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    with tarfile.open(tar) as opened_tar:
        names = opened_tar.getnames()
        assert names[:-1] == sorted(names[:-1])
        opened_tar.extractall(unpacked, filter="data")
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=unpacked, check=True)
    assert not any(name.startswith("quarantine/") for name in names)


def test_every_flipped_byte_is_found_and_its_member_named(store: Path, tar: Path) -> None:
    create(store, tar)
    assert verify(store, tar).faults == []
    whole = tar.read_bytes()
    with tarfile.open(tar) as opened_tar:
        members = opened_tar.getmembers()
    tar.chmod(0o600)
    for each in members[:6] + members[::9] + members[-4:]:
        at = each.offset_data + each.size // 2
        tar.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        faults = verify(store, tar).faults
        named = {fault.member for fault in faults}
        # A line that was changed is that of another member.
        assert each.name in named or each.name == "SHA256SUMS", each.name
        assert "" in named
        with pytest.raises(IntegrityError, match="does not prove"):
            restore(store, tar)
    for at in range(0, len(whole), len(whole) // 20):
        tar.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert verify(store, tar).faults, at


@pytest.mark.parametrize("what", ["a file", "a link", "an attachment"])
def test_a_date_that_is_not_whole_is_not_archived(store: Path, tar: Path, what: str) -> None:
    paths = {"a file": RUN, "a link": LINK, "an attachment": attachment_path(sha256(OWN))}
    flip(store / paths[what], 3)
    with pytest.raises(IntegrityError, match="Nothing was written"):
        create(store, tar)
    assert not tar.exists()
    if what != "an attachment":
        (store / paths[what]).unlink()
        with pytest.raises(IntegrityError, match="Nothing was written"):
            create(store, tar)
    assert not (store / "archives").exists()


def test_what_cannot_be_archived_is_refused(store: Path, tar: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="2025-12-21"):
        create(store, tar, DATE, "2025-12-21")
    create(store, tar)
    with pytest.raises(RefusedError, match="archived already"):
        create(store, tmp_path / "other.tar", DATE, "2025-12-19")
    with pytest.raises(RefusedError, match="has the dates 2025-12-18"):
        create(store, tar, "2025-12-19")
    assert not (tmp_path / "other.tar").exists()


def test_a_date_of_another_tar_is_refused_and_that_tar_not_blamed(
    store: Path, tar: Path, tmp_path: Path
) -> None:
    both = (DATE, "2025-12-19")
    create(store, tmp_path / "both.tar", *both)
    for date in both:
        (store / f"archives/{date}.json").unlink()
    create(store, tar)
    with pytest.raises(RefusedError, match="is another tar"):
        create(store, tmp_path / "both.tar", *both)
    record = read_record(disk_contents(store), DATE)
    assert record is not None
    with pytest.raises(RefusedError, match="another record"):
        write_record(disk_contents(store), record.model_copy(update={"links": 99}))


def test_no_removal_is_named_where_the_tar_does_not_read_back(store: Path, tar: Path) -> None:
    create(store, tar)
    flip(tar, tar.stat().st_size * 2)
    with pytest.raises(IntegrityError, match="does not prove"):
        create(store, tar)


STEPS: dict[str, tuple[str, bool]] = {
    "gathered": ("write_tar", False),
    "the tar on its way": ("write_tar", True),
    "the tar written": ("_proved", False),
    "the tar proved": ("record_of", False),
    "no record": ("write_record", False),
    "one record": ("write_record", True),
    "all but the removal": ("removal_of", False),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_create_that_is_killed_goes_on(
    step: str, store: Path, tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dates = (DATE, "2025-12-19")
    name, is_after = STEPS[step]
    real: Callable[..., Any] = getattr(creating, name)

    def die(*values: Any, **named: Any) -> None:
        if is_after:
            real(*values, **named)
        os._exit(9)

    before = files(store)
    child = os.fork()
    if child == 0:
        setattr(creating, name, die)
        try:
            create(store, tar, *dates)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = files(store)
    assert {path: left[path] for path in before} == before
    assert audit(store).findings == []
    assert {path.name for path in tar.parent.iterdir()} <= {"store", tar.name}
    made = create(store, tar, *dates)
    assert [record.date for record in made.records] == list(dates)
    remove(made)
    assert audit(store).findings == []
    restore(store, tar)
    after = files(store)
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_restore_that_is_killed_at_any_name_goes_on(
    moment: str, store: Path, tar: Path, tmp_path: Path
) -> None:
    before = files(store)
    made = create(store, tar)
    complete = files(store)
    remove(made)
    kills = 0
    while True:
        root = shutil.copytree(store, tmp_path / f"killed_{kills}")
        kills += 1
        status = in_child(partial(restore_until_killed, root, tar, kills, moment))
        left = files(root)
        assert left.items() <= complete.items()
        assert audit(root).findings == []
        restore(root, tar)
        assert files(root) == complete
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert kills - 1 == len(before) + 1 - len(files(store))


def restore_until_killed(root: Path, tar: Path, number: int, moment: str) -> None:
    """Restore, and be killed before or after the file number `number` gets its name."""
    real, names = SystemCalls.link_unnamed, itertools.count(1)

    def link(self: SystemCalls, *values: Any) -> None:
        is_last = next(names) == number
        if is_last and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, *values)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)

    SystemCalls.link_unnamed = link  # type: ignore[method-assign]
    restore(root, tar)


def test_a_removal_that_is_killed_at_any_file_is_repeated(store: Path, tar: Path) -> None:
    made = create(store, tar)
    with tarfile.open(tar) as opened_tar:
        names = [name for name in opened_tar.getnames() if name.startswith(("runs/", "attach"))]
    assert len(names) > 5
    # As `rm` goes: one name after another, what names others before them.
    for name in reversed(names):
        (store / name).unlink()
        found = audit(store)
        assert (found.findings, [*found.report["codes"]]) == ([], ["ARCHIVED"])
    remove(made)
    assert audit(store).findings == []
    restore(store, tar)
    assert audit(store).report["codes"] == {}


def test_a_thousand_runs_go_and_come_back(tmp_path: Path) -> None:
    root, tar = tmp_path / "store", tmp_path / "old.tar"
    make_store(root)
    add_runs(root, [run_record(run(number), number) for number in range(1000)])
    add_runs(root, [run_record(run(number, "2025-12-20"), number) for number in range(1000, 1003)])
    before, same = files(root), store_root(logs(root))
    made = create(root, tar)
    assert made.records[0].artifacts == 1000
    remove(made)
    assert len(files(root)) < 100
    found = audit(root)
    assert (found.findings, found.report["codes"]) == ([], {"ARCHIVED": 1000})
    with closing(reader(root)) as runs:
        page = runs.list_runs(RunFilter(limit=200, date_to=DATE))
        assert [item["archived"] for item in page.items] == [True] * 200
        with pytest.raises(ArchivedError) as archived:
            runs.find("run_500")
        assert archived.value.details["archive"]["tar"]["sha256"] == made.records[0].tar.sha256
    assert verify(root, tar).faults == []
    name = f"runs/{DATE}/run_500.json"
    with tarfile.open(tar) as opened_tar:
        at = opened_tar.getmember(name).offset_data + 100
    flip(tar, at * 8)
    assert name in {fault.member for fault in verify(root, tar).faults}
    flip(tar, at * 8)
    assert restore(root, tar).created == 1000
    after = files(root)
    assert {path: after[path] for path in before} == before
    assert store_root(logs(root)) == same


def forged(tar: Path, to: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """Write another tar with other members, whose own sums are right."""
    with tarfile.open(tar) as source:
        contents = {each.name: source.extractfile(each) for each in source.getmembers()}
        members = {name: file.read() for name, file in contents.items() if file is not None}
    del members["SHA256SUMS"]
    change(members)
    lines = [f"{sha256(content)}  {name}\n" for name, content in sorted(members.items())]
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as target:
        for name, content in [*sorted(members.items()), ("SHA256SUMS", "".join(lines).encode())]:
            target.addfile(member(name, len(content)), BytesIO(content))
    return to


OTHER_RUN = f"runs/{DATE}/run_x.json"
FORGED: dict[str, tuple[str, Callable[[dict[str, bytes]], object]]] = {
    "nothing": ("", lambda members: None),
    "a run left out": (
        RUN,
        lambda members: [
            members.pop(each) for each in (RUN, f"records/{RUN}.leaf", f"records/{RUN}.tlog-proof")
        ],
    ),
    "a run added": (OTHER_RUN, lambda members: members.update({OTHER_RUN: members[RUN]})),
    "other bytes": (RUN, lambda members: members.update({RUN: members[RUN] + b" "})),
    "the leaf of another": (
        f"records/{RUN}.tlog-proof",
        lambda members: members.update(
            {f"records/{RUN}.leaf": members[f"records/runs/{DATE}/run_1.json.leaf"]}
        ),
    ),
    "an attachment that nothing names": (
        attachment_path(sha256(b"x")),
        lambda members: members.update({attachment_path(sha256(b"x")): b"x"}),
    ),
    "a quarantined request": (
        f"quarantine/{sha256(b'x')[:2]}/{sha256(b'x')[2:4]}/{sha256(b'x')}",
        lambda members: members.update(
            {f"quarantine/{sha256(b'x')[:2]}/{sha256(b'x')[2:4]}/{sha256(b'x')}": b"x"}
        ),
    ),
    "a name of its own": (
        "runs/../store.json",
        lambda members: members.update({"runs/../store.json": b"{}"}),
    ),
    "fewer leaves": (
        "archive.json",
        lambda members: members.update(
            {"archive.json": members["archive.json"].replace(b'"size":', b'"size":1')}
        ),
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_tar_that_somebody_made_is_compared_with_the_ledger(
    what: str, store: Path, tar: Path
) -> None:
    create(store, tar)
    (store / f"archives/{DATE}.json").unlink()
    name, change = FORGED[what]
    other = forged(tar, tar.with_name("other.tar"), change)
    faults = {fault.member for fault in verify(store, other).faults}
    assert (name in faults) if name else not faults
    if name:
        with pytest.raises(IntegrityError, match="does not prove"):
            restore(store, other)


def header(type_: bytes, size: int, name: str = "x") -> bytes:
    """Return a header that `tarfile` does not make: with any size, in base 256."""
    info = member(name, 0)
    info.type = type_
    content = bytearray(info.tobuf(tarfile.PAX_FORMAT))
    content[124:136] = (size % (1 << 95) | (0xFF if size < 0 else 0x80) << 88).to_bytes(12, "big")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content)


def pax(line: bytes) -> bytes:
    return header(tarfile.XHDTYPE, len(line)) + line.ljust(512, b"\0")


CRAFTED: dict[str, bytes] = {
    "a negative size": header(tarfile.REGTYPE, -1536),
    "a negative size in an extended header": pax(b"14 size=-1536\n") + header(tarfile.REGTYPE, 0),
    "a negative extended header": header(tarfile.XHDTYPE, -512),
    "an extended header of 2**70 bytes": header(tarfile.XHDTYPE, 1 << 70),
    "an extended header of 200 GiB": header(tarfile.XHDTYPE, 200 << 30),
    "an old long name of 200 GiB": header(tarfile.GNUTYPE_LONGNAME, 200 << 30),
    "an old file with holes": header(tarfile.GNUTYPE_SPARSE, 0),
    "a file of 2**70 bytes": header(tarfile.REGTYPE, 1 << 70),
    "a size of 2**70 in an extended header": pax(b"%d size=%d\n" % (30, 1 << 70))
    + header(tarfile.REGTYPE, 0),
    "extended headers without end": pax(b"6 a=b\n") * 2000,
    "a file with holes": pax(b"22 GNU.sparse.map=0,0\n") + header(tarfile.REGTYPE, 1 << 60),
}


@pytest.mark.parametrize("what", CRAFTED)
def test_a_crafted_tar_is_refused_at_its_member(what: str, tar: Path) -> None:
    plain = header(tarfile.REGTYPE, 0, "FORMAT") + header(tarfile.REGTYPE, 0, "README.txt")
    tar.write_bytes(plain + CRAFTED[what] + b"\0" * 1024)
    with tar.open("rb") as file:
        members = itertools.islice(read_tar(file), 9)
        assert [next(members).name for _ in range(2)] == ["FORMAT", "README.txt"]
        with pytest.raises(TarError, match=r"after README\.txt|in x"):
            next(next(members).pieces)
