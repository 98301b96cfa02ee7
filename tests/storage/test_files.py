"""The contract of `Files`: the same promises, whatever the files lie on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.store.files import Creation, ExpectedFile, Files, NewFile, Presence
from pipeline.disk.durable_files import DurableFiles
from tests.storage.memory_files import MemoryFiles

IMPLEMENTATIONS: dict[str, Callable[[Path], Files]] = {
    "disk": DurableFiles,
    "memory": lambda _: MemoryFiles(),
}


@pytest.fixture(params=IMPLEMENTATIONS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
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
