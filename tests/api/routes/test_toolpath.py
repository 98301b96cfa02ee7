"""GET /{id}/toolpath: the moves of the very program that would be cut, and of no other."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.api.drawings import Drawings
from pipeline.api.http.headers import combined_tag
from pipeline.core import toolpath as reading
from pipeline.core.toolpath import read_toolpath
from pipeline.core.toolpath.moves import DRAWING_VERSION
from pipeline.errors import ExecutorError
from schemas.http_answers import ToolpathAnswer
from tests.api.conftest import Api, api_over
from tests.api.routes.test_reading import refusal, saw, spoil
from tests.builders import GCODE, attachment, attachment_ref, red_request, sha256
from tests.storage.stores import files

PROGRAM = b"G21 G90\r\nG0 X0 Y0 Z5 (\xd8 not UTF-8)\r\nG1 X10 F600\r\nM30\r\n"
DAY = "2025-12-18"


def blob_path(root: Path, content: bytes) -> Path:
    (name,) = [name for name in files(root) if sha256(content) in name]
    return root / name


def attached(content: bytes = PROGRAM, **changes: Any) -> dict[str, Any]:
    ref = attachment_ref(content, kind="gcode", mime="text/plain", filename="a.nc")
    return saw(outputs=None, attachments=[ref], **changes)


@pytest.fixture
def drawings() -> Iterator[Drawings]:
    made = Drawings()
    yield made
    made.close()


async def test_the_moves_of_a_program_in_the_artifact(api: Api) -> None:
    api.add_runs(saw())
    answer = await api.get("/saw_1/toolpath")
    assert answer.status_code == 200
    assert ToolpathAnswer.model_validate_json(answer.content)
    expected = read_toolpath(GCODE).document()
    named = {"run_id": "saw_1", "gcode_sha256": sha256(GCODE.encode())}
    assert answer.json() == json.loads(json.dumps({**expected, **named}))
    assert answer.json()["paths"][0]["kind"] == "feed"
    assert (await api.http.get("/runs/saw_1/toolpath")).content == answer.content


async def test_the_moves_of_a_program_that_was_uploaded(api: Api) -> None:
    api.add_runs(attached())
    assert refusal(await api.get("/saw_1/toolpath")) == (404, "BLOB_NOT_FOUND")
    await api.put(sha256(PROGRAM), PROGRAM)
    shown = (await api.get("/saw_1/toolpath")).json()
    assert shown["paths"] == [
        {"kind": "feed", "line": 3, "lines": [3], "points": [0.0, 0.0, 5.0, 10.0, 0.0, 5.0]}
    ]
    assert shown["gcode_sha256"] == sha256(PROGRAM)


async def test_large_text_that_became_an_attachment(api: Api) -> None:
    text = "G21 G91 F1\nG1 X1 Y0 Z0\n" + "G1 X1\n" * 40_000 + "M30\n"
    api.add_runs(saw(outputs={"gcode_text": text, "gcode_path": "/jobs/17.nc"}))
    assert (await api.get("/saw_1/toolpath")).json()["move_count"] == 40_001


async def test_a_tag_by_program_and_version_is_not_sent_twice(api: Api) -> None:
    api.add_runs(saw(), saw("saw_2"))
    first = await api.get("/saw_1/toolpath")
    assert first.headers["etag"] == combined_tag(
        [sha256(GCODE.encode()), f"drawing {DRAWING_VERSION}"]
    )
    assert first.headers["cache-control"] == "private, no-cache"
    again = await api.get("/saw_1/toolpath", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = (await api.get("/saw_2/toolpath")).json()
    assert other == {**first.json(), "run_id": "saw_2"}
    head = await api.http.head("/api/rmos/runs/saw_1/toolpath")
    assert (head.status_code, head.content) == (200, b"")


async def test_what_is_withheld_is_never_drawn(api: Api) -> None:
    await api.put(sha256(PROGRAM), PROGRAM)
    api.add_runs(
        red_request(run_id="red"),
        red_request(run_id="red_bare", outputs=None),
        attached(run_id="red_attached", feasibility={"risk_level": "RED"}),
        attached(run_id="unknown", feasibility={"score": 5}),
        saw(run_id="failed", status="ERROR"),
    )
    for run_id in ("red", "red_bare", "red_attached", "unknown", "failed"):
        answer = await api.get(f"/{run_id}/toolpath")
        assert refusal(answer) == (404, "PROGRAM_WITHHELD"), run_id
        assert answer.json()["run_id"] == run_id
        assert b"X10" not in answer.content
        assert not answer.headers.get("etag")


@pytest.mark.parametrize(
    "request_",
    [
        saw(outputs=None),
        saw(outputs=None, attachments=[attachment(b"0\nSECTION\n")]),
        saw(
            outputs=None,
            attachments=[
                attachment(each, kind="gcode", mime="text/plain", filename="a.nc")
                for each in (b"G1 X1\n", b"G1 X2\n")
            ],
        ),
        saw(outputs=None, hashes={"gcode_sha256": sha256(PROGRAM)}),
    ],
    ids=["none", "no program", "several", "claimed"],
)
async def test_where_there_is_no_one_program_nothing_is_drawn(
    api: Api, request_: dict[str, Any]
) -> None:
    # Uploaded by somebody, and not named by the run as an attachment.
    await api.put(sha256(PROGRAM), PROGRAM)
    api.add_runs(request_)
    assert refusal(await api.get("/saw_1/toolpath")) == (404, "PROGRAM_NOT_FOUND")


@pytest.mark.parametrize("damage", ["flipped", "missing", "folder"])
async def test_of_a_damaged_run_nothing_is_drawn(api: Api, damage: str) -> None:
    api.add_runs(saw())
    drawn = await api.get("/saw_1/toolpath")
    spoil(api.root / f"runs/{DAY}/saw_1.json", damage)
    for known in ({}, {"If-None-Match": drawn.headers["etag"]}):
        answer = await api.get("/saw_1/toolpath", **known)
        assert refusal(answer) == (500, "ARTIFACT_CORRUPT")


@pytest.mark.parametrize(
    "content", [PROGRAM.replace(b"X10", b"X99"), PROGRAM[:-9], b"", PROGRAM * 2]
)
async def test_of_a_damaged_attachment_nothing_is_drawn(api: Api, content: bytes) -> None:
    await api.put(sha256(PROGRAM), PROGRAM)
    api.add_runs(attached())
    drawn = await api.get("/saw_1/toolpath")
    assert drawn.status_code == 200
    blob = blob_path(api.root, PROGRAM)
    blob.chmod(0o600)
    blob.write_bytes(content)
    # Also where it was drawn before, and where the client has what it was.
    for known in ({}, {"If-None-Match": drawn.headers["etag"]}):
        answer = await api.get("/saw_1/toolpath", **known)
        assert refusal(answer) == (500, "ATTACHMENT_CORRUPT")


async def test_a_blob_is_hashed_whole_also_where_only_its_beginning_is_drawn(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = PROGRAM.replace(b"M30", b"G1 X20\nM30")
    await api.put(sha256(long), long)
    api.add_runs(attached(long))
    found = api.deps.reader.program_of("saw_1", 30)
    assert (found.sha256, found.content) == (sha256(long), long[:30])
    blob = blob_path(api.root, long)
    blob.chmod(0o600)
    blob.write_bytes(long[:-4] + b"X   ")
    assert refusal(await api.get("/saw_1/toolpath")) == (500, "ATTACHMENT_CORRUPT")


async def test_a_program_that_is_too_long_says_so(api: Api) -> None:
    begin = b"G21 G90 F1\nG0 X0 Y0 Z0\nG1 X1\n"
    line = b"(" + b" " * 1000 + b")\n"
    long = begin + line * (reading.TEXT_LIMIT_BYTES // len(line) + 1) + b"G1 X2\nM30\n"
    await api.put(sha256(long), long)
    api.add_runs(attached(long))
    shown = (await api.get("/saw_1/toolpath")).json()
    assert not shown["is_whole"]
    assert shown["remarks"][-1]["what"] == "Only the first 16,777,216 bytes are read."
    assert shown["move_count"] == 2


async def test_no_run_and_no_name_of_one(api: Api) -> None:
    assert refusal(await api.get("/saw_9/toolpath")) == (404, "RUN_NOT_FOUND")
    assert refusal(await api.get("/..%2Fx/toolpath"))[0] == 404
    api.add_runs(saw())
    assert refusal(await api.get("/saw_1/toolpath?x=1")) == (422, "INVALID_QUERY")


async def test_the_loop_answers_while_a_long_program_is_drawn(tmp_path: Path) -> None:
    """Moves are read in a process of their own: look-ups are answered meanwhile."""
    slow = "G21 G91 F1 G1 X0 Y0 Z0\n" + "X1Y1\n" * 30_000
    async with api_over(tmp_path / "store") as api:
        await api.put(sha256(slow.encode()), slow.encode())
        api.add_runs(saw("quick"), attached(slow.encode(), run_id="slow"))
        drawing = asyncio.create_task(api.get("/slow/toolpath"))
        answered = 0
        while not drawing.done():
            assert (await api.get("/quick")).status_code == 200
            answered += 1
        assert (await drawing).json()["move_count"] == 30_001
        assert answered > 3


async def test_a_drawing_is_made_once_for_all_that_wait_for_it(drawings: Drawings) -> None:
    asked = [drawings.document(sha256(GCODE.encode()), GCODE.encode()) for _ in range(5)]
    first, *others = await asyncio.gather(*asked)
    assert all(each is first for each in others)
    picture = await drawings.picture(sha256(GCODE.encode()), GCODE.encode())
    assert picture.startswith(b"<svg ")


async def test_what_was_not_asked_for_longest_is_kept_no_more(drawings: Drawings) -> None:
    a, b, c = "a" * 64, "b" * 64, "c" * 64
    first = await drawings.document(a, PROGRAM)
    drawings._kept_limit_bytes = 2 * len(first)
    second = await drawings.document(b, PROGRAM)
    assert await drawings.document(a, PROGRAM) is first
    await drawings.document(c, PROGRAM)
    assert await drawings.document(a, PROGRAM) is first
    again = await drawings.document(b, PROGRAM)
    assert again == second
    assert again is not second


async def test_a_child_process_that_is_killed_begins_anew(drawings: Drawings) -> None:
    before = await drawings.document("0" * 64, PROGRAM)
    assert drawings._child is not None
    os.kill(drawings._child._process.pid, signal.SIGKILL)
    assert json.loads(await drawings.document("1" * 64, PROGRAM)) == {
        **json.loads(before),
        "gcode_sha256": "1" * 64,
    }


async def test_a_child_process_that_is_killed_again_and_again_is_named(
    drawings: Drawings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.api.drawings._begin", os._exit)
    with pytest.raises(ExecutorError, match="killed twice"):
        await drawings.document("0" * 64, PROGRAM)
