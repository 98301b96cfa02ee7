"""The routes that read, over real files: right answers, and what is refused or made harmless."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.api import examples
from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.json.canonical import canonical_json
from pipeline.core.layout import attachment_path
from pipeline.disk.stored_files import StoredFiles
from schemas.http_answers import (
    AdvisoriesAnswer,
    AttachmentsAnswer,
    RunPageAnswer,
    RunView,
    VerificationAnswer,
)
from schemas.run_diff import RunDiff
from tests.api.conftest import RUNS, Api, api_over
from tests.builders import (
    advisory_request,
    attachment,
    attachment_ref,
    red_request,
    rosette_request,
    run_request,
    sha256,
)
from tests.storage.stores import change_index, files

DXF = b"0\nSECTION\n"
GCODE = b"G90\nG1 Z-30\n"
DAY = "2025-12-18"


def saw(run_id: str = "saw_1", **changes: Any) -> dict[str, Any]:
    return run_request(run_id=run_id, **changes)


async def test_a_run_is_shown_with_its_advisories(api: Api) -> None:
    api.add_runs(saw())
    api.add_advisories(
        advisory_request(run_id="saw_1", advisory_id="late", created_at_utc="2026-01-02T00:00:00Z"),
        advisory_request(
            run_id="saw_1", advisory_id="early", kind="note", created_at_utc="2026-01-01T00:00:00Z"
        ),
    )
    view = RunView.model_validate_json((await api.get("/saw_1")).content)
    assert [each["advisory_id"] for each in view.advisory_inputs] == ["early", "late"]
    assert view.explanation_status == "READY"
    stored = json.loads((api.root / f"runs/{DAY}/saw_1.json").read_bytes())
    shown = (await api.get("/saw_1")).json()
    computed = {name: shown.pop(name) for name in shown.keys() - stored.keys()}
    assert shown | {"advisory_inputs": []} == stored
    assert computed == {
        "explanation_status": "READY",
        "gcode_sha256": stored["hashes"]["gcode_sha256"],
        "gcode_known_by": "stored",
        "missing_attachments": [],
    }


async def test_a_run_names_the_attachments_that_are_not_there_at_the_moment(api: Api) -> None:
    cut = attachment_ref(GCODE, kind="gcode", mime="text/plain", filename="a.nc")
    api.add_runs(saw(outputs=None, attachments=[cut, attachment(DXF)]))
    before = await api.get("/saw_1")
    view = RunView.model_validate_json(before.content)
    assert view.missing_attachments == [sha256(GCODE)]
    assert (view.gcode_sha256, view.gcode_known_by) == (sha256(GCODE), "attached")
    (item,) = (await api.get()).json()["items"]
    assert (item["gcode_sha256"], item["gcode_known_by"]) == (sha256(GCODE), "attached")
    await api.put(sha256(GCODE), GCODE)
    after = await api.get("/saw_1", **{"If-None-Match": before.headers["etag"]})
    assert after.json()["missing_attachments"] == []


async def test_a_path_that_gave_way_to_large_gcode_is_shown_beside_the_artifact(api: Api) -> None:
    large = {"gcode_text": "G1 X1\n" * 40_000, "gcode_path": "/jobs/17.nc"}
    api.add_runs(saw(outputs=large))
    view = RunView.model_validate_json((await api.get("/saw_1")).content)
    assert view.given == {"outputs.gcode_path": "/jobs/17.nc"}
    assert view.outputs.gcode_path is not None
    assert view.outputs.gcode_path.startswith("attachments/")


async def test_a_note_explains_nothing(api: Api) -> None:
    api.add_runs(saw())
    api.add_advisories(advisory_request(run_id="saw_1", kind="note"))
    assert (await api.get("/saw_1")).json()["explanation_status"] == "NONE"
    (item,) = (await api.get()).json()["items"]
    assert (item["advisory_count"], item["explanation_status"]) == (1, "NONE")


async def test_every_digit_of_a_number_is_shown(api: Api) -> None:
    digits = int("9" * 30)
    api.add_runs(saw(meta={"n": digits, "x": 1e-05, "y": 100.0}))
    text = (await api.get("/saw_1")).text
    assert f'"n":{digits},"x":1e-05,"y":100.0' in text


async def test_a_tag_changes_with_each_advisory_and_is_not_sent_twice(api: Api) -> None:
    api.add_runs(saw())
    first = await api.get("/saw_1")
    again = await api.get("/saw_1", **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    api.add_advisories(advisory_request(run_id="saw_1"))
    after = await api.get("/saw_1", **{"If-None-Match": first.headers["etag"]})
    assert after.status_code == 200
    assert after.headers["etag"] != first.headers["etag"]


async def test_a_download_is_the_file(api: Api) -> None:
    api.add_runs(saw())
    content = (api.root / f"runs/{DAY}/saw_1.json").read_bytes()
    answer = await api.get("/saw_1/download")
    assert answer.content == content
    assert answer.headers["etag"] == f'"{sha256_of_bytes(content)}"'
    assert answer.headers["content-disposition"] == 'attachment; filename="saw_1.json"'
    known = await api.get("/saw_1/download", **{"If-None-Match": answer.headers["etag"]})
    assert known.status_code == 304


@pytest.mark.parametrize("damage", ["flipped", "missing", "folder"])
async def test_a_damaged_file_is_an_integrity_fault_and_breaks_no_list(
    api: Api, damage: str
) -> None:
    api.add_runs(saw(), saw("saw_2"))
    spoil(api.root / f"runs/{DAY}/saw_1.json", damage)
    for path in ("/saw_1", "/saw_1/download", "/saw_1/attachments"):
        answer = await api.get(path)
        assert refusal(answer) == (500, "ARTIFACT_CORRUPT"), path
        assert answer.json()["run_id"] == "saw_1"
    listed = (await api.get()).json()["items"]
    assert [item["run_id"] for item in listed] == ["saw_2", "saw_1"]
    assert (await api.get("/saw_2")).status_code == 200


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def spoil(file: Path, damage: str) -> None:
    content = bytearray(file.read_bytes())
    file.unlink()
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "folder":
        file.mkdir()


NO_SOURCE = "UPDATE {} SET source_epoch=NULL, source_topic=NULL, source_offset=NULL WHERE {}"


async def test_a_run_that_no_record_explains_is_not_shown(api: Api) -> None:
    """As after a rebuild of the index over a file that somebody put there."""
    api.add_runs(saw(), saw("saw_2"))
    change_index(api.root, NO_SOURCE.format("runs", "run_id='saw_1'"))
    routes = ("/saw_1", *(f"/saw_1/{part}" for part in ("download", "advisories", "attachments")))
    for path in (*routes, "/diff?a=saw_1&b=saw_2"):
        assert refusal(await api.get(path)) == (500, "RUN_UNEXPLAINED"), path
    for query in ("", "?tool_id_prefix=saw", "?limit=1"):
        listed = (await api.get(query)).json()
        assert ([item["run_id"] for item in listed["items"]], listed["next_cursor"]) == (
            ["saw_2"],
            None,
        )


async def test_a_link_that_no_record_explains_is_not_shown(api: Api) -> None:
    api.add_runs(saw())
    api.add_advisories(
        advisory_request(run_id="saw_1", advisory_id="own", kind="explanation"),
        advisory_request(run_id="saw_1", advisory_id="forged", kind="explanation"),
    )
    change_index(api.root, NO_SOURCE.format("advisories", "advisory_id='forged'"))
    found = (await api.get("/saw_1/advisories")).json()
    assert [each["advisory_id"] for each in found["advisories"]] == ["own"]
    change_index(api.root, NO_SOURCE.format("advisories", "advisory_id='own'"))
    (item,) = (await api.get()).json()["items"]
    assert (item["advisory_count"], item["explanation_status"]) == (0, "NONE")


HOSTILE = [
    "..",
    "../store.json",
    "..%2f..%2fstore.json",
    "%2e%2e%2fstore.json",
    "saw_1%00",
    "saw_1%0a",
    "saw_1%0d%0aX-Evil:%201",
    "%ff%fe",
    "saw_1%2f..%2fsaw_1",
    "a" * 101,
    "a" * 5000,
    "-saw",
    ".hidden",
    "diff_advisory_x",
    "saw_1_advisory",
    "attachments",
    "%C3%A4",
    "saw%201",
    "store.json",
    "index.sqlite3",
]


async def test_what_names_no_run_is_not_found(api: Api) -> None:
    api.add_runs(saw())
    routes = ("", "/download", "/advisories", "/attachments", "/attachments/verify")
    allowed = {(404, "RUN_NOT_FOUND"), (404, "NOT_FOUND")}
    others = {}
    for path in (f"/{name}{route}" for name in HOSTILE for route in routes):
        answer = await api.get(path)
        # What `attachments` means in the place of a name has no GET.
        known = allowed | ({(405, "METHOD_NOT_ALLOWED")} if path.startswith("/attach") else set())
        if refusal(answer) not in known or "evil" in str(answer.headers).lower():
            others[path] = refusal(answer)
    assert others == {}


async def test_what_names_no_blob_is_not_found_and_takes_no_upload(api: Api) -> None:
    api.add_runs(saw(attachments=[attachment(DXF)]))
    before = files(api.root)
    others = {}
    for name in [*HOSTILE[1:12], "0" * 63, "0" * 65, "A" * 64]:
        put = await api.put(name, DXF)
        answer = await api.get(f"/saw_1/attachments/{name}")
        if put.status_code not in {404, 405} or answer.status_code != 404:
            others[name] = (put.status_code, answer.status_code)
        assert answer.json()["error"] in {"ATTACHMENT_NOT_FOUND", "NOT_FOUND"}, name
    assert others == {}
    assert (await api.put("..", DXF)).status_code == 405
    assert files(api.root) == before
    answer = await api.get(f"/saw_1/attachments/{'0' * 64}")
    assert refusal(answer) == (404, "ATTACHMENT_NOT_FOUND")


async def test_two_runs_are_compared_with_their_advisories(api: Api) -> None:
    api.add_runs(saw(), red_request(run_id="red_1"))
    api.add_advisories(advisory_request(run_id="saw_1"))
    diff = RunDiff.model_validate_json((await api.get("/diff?a=saw_1&b=red_1")).content)
    assert diff.diff_severity == "CRITICAL"
    assert {"status", "decision.risk_level", "advisory_inputs"} <= set(diff.changed_paths)
    same = (await api.get("/diff?a=saw_1&b=saw_1")).json()
    assert (same["items"], same["diff"]) == ([], {})


async def test_a_diff_needs_two_runs(api: Api) -> None:
    api.add_runs(saw())
    for query, status, code, run_id in (
        ("?a=nobody&b=nobody_2", 404, "RUN_NOT_FOUND", "nobody"),
        ("?a=saw_1&b=nobody_2", 404, "RUN_NOT_FOUND", "nobody_2"),
        ("?a=saw_1&b=../x", 404, "RUN_NOT_FOUND", None),
        ("?a=saw_1", 422, "INVALID_QUERY", None),
        ("", 422, "INVALID_QUERY", None),
    ):
        answer = await api.get(f"/diff{query}")
        assert (*refusal(answer), answer.json().get("run_id")) == (status, code, run_id), query


async def test_a_listing_filters_and_pages(api: Api) -> None:
    api.add_runs(saw(), saw("saw_2"), red_request(run_id="red_1"), rosette_request(run_id="ros"))
    page = RunPageAnswer.model_validate_json((await api.get("?limit=2")).content)
    assert [item.run_id for item in page.items] == ["ros", "saw_2"]
    rest = (await api.get(f"?limit=2&cursor={page.next_cursor}")).json()
    assert [item["run_id"] for item in rest["items"]] == ["saw_1", "red_1"]
    assert rest["next_cursor"] is None
    blocked = (await api.get("?status=BLOCKED&tool_id_prefix=saw:&date_to=2025-12-18")).json()
    assert [item["run_id"] for item in blocked["items"]] == ["red_1"]
    none = (await api.get("?mode=laser")).json()
    assert none == {"items": [], "next_cursor": None, "limit": 50}


async def test_the_runs_of_a_program_are_listed_with_the_one_that_withholds_it(api: Api) -> None:
    api.add_runs(saw(), rosette_request(run_id="ros", outputs=None), red_request(run_id="red"))
    page = RunPageAnswer.model_validate_json(
        (await api.get(f"?gcode_sha256={sha256(saw()['outputs']['gcode_text'])}")).content
    )
    shown = [(item.run_id, item.status, item.gcode_sha256 is None) for item in page.items]
    assert shown == [("saw_1", "OK", False), ("red", "BLOCKED", True)]


async def test_a_limit_is_clamped(api: Api) -> None:
    wanted = {"0": 1, "-5": 1, "10000": 200, "9" * 30: 200}
    assert {given: (await api.get(f"?limit={given}")).json()["limit"] for given in wanted} == wanted


async def test_a_value_that_cannot_be_used_is_refused(api: Api) -> None:
    queries = [
        *(
            "status=ok",
            "status=MAYBE",
            "risk_level=BLUE",
            "gcode_sha256=0",
            f"gcode_sha256={'A' * 64}",
        ),
        *("date_from=yesterday", "date_to=2025-02-30", "date_from=20251218"),
        *("date_from=2025-W51-4", "limit=many", "limit=1.5", "limit=" + "9" * 5000),
        *("cursor=x", "cursor=!!!", "cursor=YWJj", "cursor=" + "9" * 1000),
        "cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTl8cnVu",
        *("cursor=MXwuLi94", "cursor=MXxydW4=%0a", "cursor=", "mode=" + "x" * 201),
    ]
    answers = {query: refusal(await api.get(f"?{query}")) for query in queries}
    assert answers == dict.fromkeys(queries, (422, "INVALID_QUERY"))
    message = (await api.get("?date_to=2025-02-30")).json()["message"]
    assert message == "date_to: expected a date that exists, such as 2025-12-18."


async def test_a_parameter_that_the_route_does_not_know_is_refused(api: Api) -> None:
    api.add_runs(saw())
    for path, told in (
        ("?statsu=OK", "There is no parameter 'statsu' here: did you mean status?"),
        ("?Status=OK", "There is no parameter 'Status' here: did you mean status?"),
        (
            "?offset=50",
            "There is no parameter 'offset' here: the next page is asked for with cursor, the "
            "next_cursor of this one.",
        ),
        ("/diff?left_id=saw_1&b=saw_1", "There is no parameter 'left_id' here; expected one of a,"),
        ("/saw_1?verbose", "There is no parameter 'verbose' here."),
        ("/saw_1/download?x=%E2%80%AE", "There is no parameter 'x' here."),
        ("?status=OK&status=BLOCKED", "status: expected one value, found 2."),
        ("/diff?a=&b=saw_1", "a: Field required."),
    ):
        answer = await api.get(path)
        assert refusal(answer) == (422, "INVALID_QUERY"), path
        assert answer.json()["message"].startswith(told), path


async def test_an_unknown_parameter_is_refused_where_something_is_written(api: Api) -> None:
    for answer in (
        await api.http.post(f"{RUNS}?dry_run=true", content=b"{}"),
        await api.http.post(f"{RUNS}/saw_1/attach-advisory?x=1", content=b"{}"),
        await api.http.put(f"{RUNS}/attachments/{sha256(DXF)}?x=1", content=DXF),
    ):
        assert (answer.status_code, answer.json()["error"]) == (422, "INVALID_QUERY")
    assert not (api.root / "attachments").exists()


async def test_an_empty_value_is_like_none(api: Api) -> None:
    api.add_runs(saw())
    all_runs = (await api.get()).content
    for query in ("status=", "risk_level=&mode=&tool_id=", "date_from=&date_to=", "limit=", "&"):
        assert (await api.get(f"?{query}")).content == all_runs, query


async def test_a_listing_by_material_and_machine(api: Api) -> None:
    api.add_runs(
        saw("a", material_id="oak"), saw("b", machine_id="mill"), saw("c", material_id="oak")
    )
    by_material = (await api.get("?material_id=oak")).json()["items"]
    assert [item["run_id"] for item in by_material] == ["c", "a"]
    by_both = (await api.get("?material_id=oak&machine_id=mill")).json()["items"]
    assert by_both == []
    by_machine = (await api.get("?machine_id=mill")).json()["items"]
    assert [item["run_id"] for item in by_machine] == ["b"]


async def test_odd_texts_find_nothing_or_all_and_break_nothing(api: Api) -> None:
    api.add_runs(saw())
    for query in ("tool_id_prefix=", "mode=%00", "tool_id=%ff", "tool_id=%25_"):
        assert (await api.get(f"?{query}")).status_code == 200, query


async def test_attachments_are_listed_verified_and_downloaded(api: Api) -> None:
    api.add_runs(saw(attachments=[attachment(DXF), attachment_ref(b"away", kind="manifest")]))
    listed = AttachmentsAnswer.model_validate_json((await api.get("/saw_1/attachments")).content)
    assert listed.count == 2
    first = await api.http.get(listed.attachments[0].download_url)
    assert first.content == DXF
    assert first.headers["content-type"] == "image/vnd.dxf"
    assert first.headers["etag"] == f'"{sha256(DXF)}"'
    away = await api.http.get(listed.attachments[1].download_url)
    assert (away.status_code, away.json()["error"]) == (404, "BLOB_NOT_FOUND")
    found = VerificationAnswer.model_validate_json(
        (await api.get("/saw_1/attachments/verify")).content
    ).verification
    assert (found.ok, found.count) == (False, 2)
    assert [(each.ok, each.error, each.rule) for each in found.results] == [
        (True, None, "raw"),
        (False, "blob_not_found", None),
    ]
    assert found.results[0].size_bytes == len(DXF)


async def test_a_flipped_byte_is_found_and_not_sent(api: Api) -> None:
    api.add_runs(saw(attachments=[attachment(DXF)]))
    digest = sha256(DXF)
    spoil(api.root / f"attachments/{digest[:2]}/{digest[2:4]}/{digest}", "flipped")
    (result,) = (await api.get("/saw_1/attachments/verify")).json()["verification"]["results"]
    assert (result["ok"], result["error"]) == (False, "hash_mismatch")
    assert result["actual_sha256"] not in {None, digest}
    answer = await api.get(f"/saw_1/attachments/{digest}")
    assert (answer.status_code, answer.json()["error"]) == (500, "ATTACHMENT_CORRUPT")


async def test_a_run_without_attachments_verifies(api: Api) -> None:
    api.add_runs(saw())
    found = (await api.get("/saw_1/attachments/verify")).json()
    expected = {"ok": True, "count": 0, "results": []}
    assert found == {"run_id": "saw_1", "verification": expected}


async def test_a_legacy_json_blob_verifies_by_its_canonical_form(api: Api) -> None:
    canonical = b'{"a":1,"b":[true,null]}'
    pretty = json.dumps(json.loads(canonical), indent=2).encode()
    digest = sha256(canonical)
    ref = attachment_ref(canonical, mime="application/json", kind="manifest")
    api.add_runs(saw(attachments=[ref]))
    path = api.root / f"attachments/{digest[:2]}/{digest[2:4]}/{digest}"
    path.parent.mkdir(parents=True)
    path.write_bytes(pretty)
    (result,) = (await api.get("/saw_1/attachments/verify")).json()["verification"]["results"]
    assert (result["ok"], result["rule"]) == (True, "canonical")
    assert result["actual_sha256"] == sha256(pretty)
    assert (await api.get(f"/saw_1/attachments/{digest}")).content == pretty


async def test_a_range_is_answered(api: Api) -> None:
    api.add_runs(saw(attachments=[attachment(DXF)]))
    for header, status, content, content_range in (
        ("bytes=2-4", 206, DXF[2:5], "bytes 2-4/10"),
        ("bytes=-3", 206, DXF[-3:], "bytes 7-9/10"),
        ("bytes=0-", 206, DXF, "bytes 0-9/10"),
        ("bytes=5-2", 200, DXF, None),
        ("bytes=0-1,3-4", 200, DXF, None),
        ("nonsense", 200, DXF, None),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
    ):
        answer = await api.get(f"/saw_1/attachments/{sha256(DXF)}", Range=header)
        assert answer.status_code == status, header
        assert answer.headers.get("content-range") == content_range
        if content is None:
            assert answer.json()["error"] == "RANGE_NOT_SATISFIABLE"
        else:
            assert answer.content == content
            assert answer.headers["content-length"] == str(len(content))


async def test_a_range_of_another_version_is_the_whole(api: Api) -> None:
    api.add_runs(saw(attachments=[attachment(DXF)]))
    path = f"/saw_1/attachments/{sha256(DXF)}"
    same = await api.get(path, **{"Range": "bytes=0-1", "If-Range": f'"{sha256(DXF)}"'})
    assert same.status_code == 206
    other = await api.get(path, **{"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, DXF)
    known = await api.get(path, **{"If-None-Match": f'"{sha256(DXF)}"'})
    assert known.status_code == 304


async def test_html_and_svg_are_saved_under_a_harmless_name(api: Api) -> None:
    names = [
        *('a"; filename="b.exe', "a\\\"; x=\\'", "ä \u202egpj.exe", "a;b=c", "%0d%0aX-Evil: 1"),
        *("a" * 200, "\U0001f600.svg"),
    ]
    mimes = ["text/html", "image/svg+xml", "text/html; charset=utf-8"]
    for number, (filename, mime) in enumerate(product(names, mimes)):
        svg = f"<svg onload='alert({number})'/>".encode()
        ref = attachment(svg, filename=filename, mime=mime)
        api.add_runs(saw(f"saw_{number}", attachments=[ref]))
        answer = await api.get(f"/saw_{number}/attachments/{sha256(svg)}")
        assert (answer.status_code, answer.content) == (200, svg)
        disposition = answer.headers["content-disposition"]
        assert disposition.startswith('attachment; filename="'), filename
        assert disposition.count('"') == 2, filename
        assert "x-evil" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["content-type"].startswith(mime.partition(";")[0])


async def test_the_content_of_an_advisory_can_be_downloaded(api: Api) -> None:
    api.add_runs(saw(), saw("saw_2"))
    text = b"because"
    api.add_advisories(
        advisory_request(run_id="saw_1", content_text=text.decode()),
        advisory_request(run_id="saw_1", advisory_id="bare", content_text=None),
    )
    listed = AdvisoriesAnswer.model_validate_json((await api.get("/saw_1/advisories")).content)
    assert listed.count == 2
    urls = {each.advisory_id: each.download_url for each in listed.advisories}
    assert urls["bare"] is None
    answer = await api.http.get(str(urls["adv_1"]))
    assert answer.content == text
    assert answer.headers["content-type"] == "text/markdown"
    assert (await api.get(f"/saw_2/attachments/{sha256(text)}")).status_code == 404


async def test_nothing_that_is_withheld_can_be_downloaded(api: Api) -> None:
    gcode = b"G90\nG1 Z-30\n"
    digest = sha256(gcode)
    assert (await api.put(digest, gcode)).status_code == 201
    cut = attachment_ref(gcode, kind="gcode", mime="text/plain", filename="a.nc")
    api.add_runs(red_request(run_id="red_1", attachments=[cut]), saw())
    # Whoever may publish an advisory names the blob, for the same run and for another.
    api.add_advisories(
        advisory_request(run_id="red_1", content_text=None, content_sha256=digest),
        advisory_request(run_id="saw_1", content_text=None, content_sha256=digest),
    )
    for run_id in ("red_1", "saw_1"):
        answer = await api.get(f"/{run_id}/attachments/{digest}")
        assert (answer.status_code, answer.json()["error"]) == (404, "ATTACHMENT_NOT_FOUND")
    # A run that is OK and lists it itself shows it.
    api.add_runs(saw("saw_3", attachments=[cut]))
    assert (await api.get(f"/saw_3/attachments/{digest}")).content == gcode


@pytest.mark.parametrize(
    "part",
    [
        {"outputs": {"gcode_text": GCODE.decode()}},
        {"outputs": {"toolpaths": {"moves": []}}},
        {"outputs": {"opplan_json": {"steps": []}}},
        {"outputs": None, "hashes": {"gcode_sha256": sha256(GCODE)}},
    ],
)
async def test_what_is_withheld_inline_is_withheld_as_an_attachment_is(
    api: Api, part: dict[str, Any]
) -> None:
    outputs = part["outputs"] or {}
    content = GCODE
    if "gcode_text" not in outputs and outputs:
        content = canonical_json(next(iter(outputs.values())))
    digest = sha256(content)
    api.add_runs(red_request(run_id="red_1", **part), saw())
    await api.put(digest, content)
    api.add_advisories(
        advisory_request(run_id="red_1", content_text=None, content_sha256=digest),
        advisory_request(run_id="saw_1", content_text=None, content_sha256=digest),
        advisory_request(run_id="saw_1", advisory_id="text", content_text=content.decode()),
    )
    for run_id in ("red_1", "saw_1"):
        answer = await api.get(f"/{run_id}/attachments/{digest}")
        assert (answer.status_code, answer.json()["error"]) == (404, "ATTACHMENT_NOT_FOUND")


async def test_a_program_that_a_blocked_run_lists_as_debug_is_withheld(api: Api) -> None:
    digest = sha256(GCODE)
    assert (await api.put(digest, GCODE)).status_code == 201
    listed = attachment_ref(GCODE, kind="debug")
    log = attachment(b"spindle stalled", kind="debug")
    outputs = {"gcode_path": attachment_path(digest)}
    api.add_runs(
        red_request(run_id="red_1", outputs=outputs, attachments=[listed, log]),
        red_request(run_id="red_2", attachments=[listed]),
        saw(),
    )
    api.add_advisories(advisory_request(run_id="saw_1", content_text=None, content_sha256=digest))
    for run_id in ("red_1", "red_2", "saw_1"):
        answer = await api.get(f"/{run_id}/attachments/{digest}")
        assert (answer.status_code, answer.json()["error"]) == (404, "ATTACHMENT_NOT_FOUND"), run_id
    assert (await api.get(f"/red_1/attachments/{sha256(b'spindle stalled')}")).status_code == 200


async def test_what_is_quarantined_has_no_route(api: Api) -> None:
    api.add_runs(red_request(run_id="red_1"))
    (kept,) = [path.name for path in (api.root / "quarantine").rglob("*") if path.is_file()]
    assert (await api.get(f"/red_1/attachments/{kept}")).status_code == 404


async def test_an_uploaded_blob_has_no_route_of_its_own(api: Api) -> None:
    api.add_runs(saw())
    await api.put(sha256(DXF), DXF)
    assert (await api.get(f"/saw_1/attachments/{sha256(DXF)}")).status_code == 404
    assert (await api.get(f"/attachments/{sha256(DXF)}")).status_code in {404, 405}


async def test_nothing_can_be_changed_or_deleted(api: Api) -> None:
    api.add_runs(saw())
    paths = ("", "/saw_1", "/saw_1/advisories", f"/attachments/{'0' * 64}")
    for method, path in product(("PATCH", "DELETE"), paths):
        answer = await api.http.request(method, RUNS + path)
        assert refusal(answer) == (405, "METHOD_NOT_ALLOWED"), (method, path)
        assert answer.headers["allow"]


async def test_the_second_name_of_the_routes_answers_alike(api: Api) -> None:
    api.add_runs(saw())
    for path in ("", "/saw_1", "/saw_1/attachments/verify", "/diff?a=saw_1&b=saw_1"):
        assert (await api.http.get("/runs" + path)).content == (await api.get(path)).content


async def test_a_request_id_is_given_back_or_made(api: Api) -> None:
    assert (await api.get(**{"X-Request-ID": "abc-1"})).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 101, ""):
        made = (await api.get(**{"X-Request-ID": bad})).headers["x-request-id"]
        assert len(made) == 32


async def test_an_index_that_was_rebuilt_is_opened_again(api: Api, tmp_path: Path) -> None:
    api.add_runs(saw())
    async with api_over(tmp_path / "other") as other:
        other.add_runs(saw("new_1"))
        other.deps.reader.close()
        source = other.root / "index.sqlite3"
        source.replace(api.root / "index.sqlite3")
        for name in ("index.sqlite3-wal", "index.sqlite3-shm"):
            (api.root / name).unlink(missing_ok=True)
        assert [item["run_id"] for item in (await api.get()).json()["items"]] == ["new_1"]


async def test_a_store_that_went_away_is_said_without_its_path(api: Api) -> None:
    api.add_runs(saw())
    (api.root / "index.sqlite3").rename(api.root / "away")
    for path in ("", "/saw_1", "/saw_1/download"):
        answer = await api.get(path)
        assert (answer.status_code, answer.json()["error"]) == (503, "STORE_UNAVAILABLE")


async def test_an_unexpected_failure_is_one_of_our_errors(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(api.deps.reader), "find", lambda *_: 1 / 0)
    answer = await api.get("/saw_1")
    assert answer.status_code == 500
    assert answer.json() == {
        "error": "INTERNAL_ERROR",
        "message": "The server failed; its log says why.",
    }


async def test_the_files_that_a_request_opens_do_not_grow_with_the_advisories(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.add_runs(saw())
    request_sha256 = (await api.get("/saw_1")).json()["provenance"]["request_sha256"]
    opened: list[str] = []
    read = StoredFiles.read

    def counted(files: StoredFiles, path: str, limit_bytes: int) -> bytes:
        opened.append(path.rpartition("/")[2])
        return read(files, path, limit_bytes)

    monkeypatch.setattr(StoredFiles, "read", counted)
    for number in range(3):
        api.add_advisories(advisory_request(run_id="saw_1", advisory_id=f"adv_{number}"))
        opened.clear()
        await api.get("/saw_1")
        await api.get("/saw_1/advisories")
        # The second is the request, which is kept in quarantine of some runs.
        assert opened == ["saw_1.json", request_sha256, "saw_1.json"]


def test_every_example_has_its_shape() -> None:
    RunView.model_validate(examples.RUN_VIEW)
    RunPageAnswer.model_validate(examples.RUN_PAGE)
    RunDiff.model_validate(examples.RUN_DIFF)
    AdvisoriesAnswer.model_validate(examples.ADVISORIES)
    AttachmentsAnswer.model_validate(examples.ATTACHMENTS)
    VerificationAnswer.model_validate(examples.VERIFICATION)
