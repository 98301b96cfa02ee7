"""The contract of `Files`: the same promises, whatever the files lie on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.bucket.files import BucketFiles
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.store.files import (
    Creation,
    ExpectedFile,
    Files,
    FoundName,
    NewFile,
    NotAFileError,
    Presence,
)
from pipeline.disk.durable_files import DurableFiles
from tests.bucket.buckets import SCHEMES, SERVERS, objects_of
from tests.storage.memory_files import MemoryFiles
from tests.storage.stores import NamedCalls

IMPLEMENTATIONS: dict[str, Callable[[Path], Files]] = {
    "disk": DurableFiles,
    "disk, a flush for each": lambda root: DurableFiles(root, NamedCalls()),
    "disk, opened to read": DurableFiles.untried,
    "memory": lambda _: MemoryFiles(),
}


@pytest.fixture(params=[*IMPLEMENTATIONS, *SERVERS])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param in SCHEMES:
        return BucketFiles(objects_of(request, request.param))
    return IMPLEMENTATIONS[request.param](tmp_path)


def expected(path: str, content: bytes) -> ExpectedFile:
    return ExpectedFile(path, sha256_of_bytes(content), len(content))


def test_a_file_is_created_once_and_then_compared(files: Files) -> None:
    assert files.create([NewFile("runs/a", b"1")]) == {"runs/a": Creation.CREATED}
    assert files.create([NewFile("runs/a", b"1")]) == {"runs/a": Creation.SAME}
    assert files.create([NewFile("runs/a", b"2")]) == {"runs/a": Creation.DIFFERENT}
    found = files.presence([expected("runs/a", b"1")])
    assert found == {"runs/a": Presence.SAME}


@pytest.mark.parametrize("method", ["create", "link"])
def test_what_came_of_many_files_is_answered_in_their_order(files: Files, method: str) -> None:
    files.create([NewFile("b", b"there")])
    create = getattr(files, method)
    made = create([NewFile("c", b""), NewFile("b", b"other"), NewFile("a/b/c", b"x", private=True)])
    assert list(made.items()) == [
        ("c", Creation.CREATED),
        ("b", Creation.DIFFERENT),
        ("a/b/c", Creation.CREATED),
    ]
    assert create([]) == {}


def test_a_file_is_not_made_where_one_that_it_needs_has_other_bytes(files: Files) -> None:
    files.create([NewFile("blob", b"other")])
    needed = frozenset({"blob", "whole"})
    made = files.create(
        [
            NewFile("whole", b"1"),
            NewFile("blob", b"wanted"),
            NewFile("document", b"2", needs=needed),
            NewFile("elsewhere", b"3", needs=frozenset({"whole"})),
        ]
    )
    assert made["document"] is Creation.NOT_MADE
    assert made["elsewhere"] is Creation.CREATED
    assert files.presence([expected("document", b"2")]) == {"document": Presence.MISSING}


def test_the_presence_of_many_files_is_asked_for_at_once(files: Files) -> None:
    files.create([NewFile("same", b"same"), NewFile("other", b"text")])
    assert files.presence(
        [
            expected("same", b"same"),
            expected("other", b"TEXT"),
            expected("longer", b""),
            ExpectedFile("other/below", "0" * 64),
            ExpectedFile("same", sha256_of_bytes(b"same")),
        ]
    ) == {
        "same": Presence.SAME,
        "other": Presence.DIFFERENT,
        "longer": Presence.MISSING,
        "other/below": Presence.MISSING,
    }
    assert files.presence([]) == {}


def test_what_was_written_ahead_has_no_name_until_it_is_created(files: Files) -> None:
    new = [NewFile("a", b"1"), NewFile("b", b"2")]
    written = files.write(new)
    missing = dict.fromkeys(("a", "b"), Presence.MISSING)
    wanted = [expected(each.path, each.content) for each in new]
    assert files.presence(wanted) == missing
    # Another decision than was hoped for: one with other bytes, and one not at all.
    assert files.create([NewFile("a", b"changed")], written) == {"a": Creation.CREATED}
    assert files.presence(wanted) == {"a": Presence.DIFFERENT, "b": Presence.MISSING}


def test_what_was_written_ahead_may_be_closed_without_use(files: Files) -> None:
    with files.write([NewFile("a", b"1")]) as written:
        written.close()
    assert files.presence([expected("a", b"1")]) == {"a": Presence.MISSING}


@pytest.fixture
def stored(files: Files) -> Files:
    files.create([NewFile("runs/day/a", b"12345"), NewFile("runs/b", b""), NewFile("store", b"x")])
    return files


def test_a_file_is_read_whole_or_not_at_all(stored: Files) -> None:
    assert stored.read("runs/day/a", 5) == b"12345"
    assert stored.read("runs/b", 0) == b""
    with pytest.raises(NotAFileError, match="a file of 5 bytes"):
        stored.read("runs/day/a", 4)
    for missing in ("runs/day/b", "runs/other/a", "other"):
        with pytest.raises(FileNotFoundError):
            stored.read(missing, 5)


def test_an_open_file_is_read_in_parts(stored: Files) -> None:
    file = stored.open("runs/day/a")
    try:
        assert file.size_bytes == 5
        assert [file.read(offset, 2) for offset in (0, 2, 4, 5, 9)] == [
            b"12",
            b"34",
            b"5",
            b"",
            b"",
        ]
    finally:
        file.close()
    with pytest.raises(FileNotFoundError):
        stored.open("runs/day/b")


def test_folders_are_listed_in_order(stored: Files) -> None:
    assert stored.names("") == [FoundName("runs", True), FoundName("store", False)]
    assert stored.names("runs") == [FoundName("runs/b", False), FoundName("runs/day", True)]
    assert stored.names("other") == []
    assert list(stored.paths_below("runs")) == ["runs/b", "runs/day/a"]
    assert stored.has_folder("runs/day")
    assert not stored.has_folder("other")


def test_what_is_read_of_many_comes_in_their_order(stored: Files) -> None:
    stored.create([NewFile(f"many/{n:03}", str(n).encode()) for n in range(150)])
    read = stored.at_once(lambda path: stored.read(path, 5), stored.paths_below("many"))
    assert [int(content) for content in read] == list(range(150))

    def fail(path: str) -> bytes:
        return stored.read(f"{path}.missing", 5)

    with pytest.raises(FileNotFoundError):
        next(stored.at_once(fail, ["many/001", "many/002"]))


def test_whether_files_are_there_is_asked_of_many_at_once(stored: Files) -> None:
    asked = ["runs/day/a", "runs/b", "runs/c", "other/d"]
    assert stored.present(asked) == stored.readable(asked) == {"runs/day/a", "runs/b"}
    assert stored.present([]) == stored.readable([]) == set()


def test_a_note_is_removed_and_one_that_is_not_there_is_as_removed(stored: Files) -> None:
    stored.remove(["runs/b", "runs/c"])
    assert stored.present(["runs/b"]) == set()


def test_a_file_of_any_size_is_named_once_it_is_whole(stored: Files) -> None:
    if stored.name.startswith("gs://"):
        pytest.skip("fake-gcs-server has no uploads in parts by the XML API")
    for content, created in ((b"first", True), (b"other", False)):
        upload = stored.begin_upload()
        try:
            for piece in (content[:3], content[3:]):
                upload.write(piece)
            assert ("blob/x" in stored.present(["blob/x"])) is not created
            assert upload.publish("blob/x") is created
        finally:
            upload.end()
            upload.end()
    assert stored.read("blob/x", 9) == b"first"


def test_an_upload_that_is_ended_leaves_nothing(stored: Files) -> None:
    before = stored.names("")
    upload = stored.begin_upload()
    upload.write(b"some")
    upload.end()
    assert stored.names("") == before
