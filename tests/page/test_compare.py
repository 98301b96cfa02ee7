"""Two runs beside each other."""

import pytest

from pipeline.core.json.canonical import canonical_json
from pipeline.core.toolpath import read_toolpath
from pipeline.page.compare import likeness, moves_of
from tests.builders import ABSENT, GCODE, attachment, red_request, run_request
from tests.page.conftest import Element, Site


def rows(page: Element) -> dict[str, list[str]]:
    (table, *_) = (each for each in page.all("table") if "What" in each.words or each.one("thead"))
    return {
        row.one("th").words: [cell.words for cell in row.all("td")]
        for row in table.one("tbody").all("tr")
    }


async def test_the_form_asks_for_what_is_missing(site: Site) -> None:
    page = await site.page("/compare?a=run_a")
    values = {
        each.attributes["name"]: each.attributes["value"] for each in page.one("main").all("input")
    }
    assert values == {"a": "run_a", "b": ""}
    assert list(page.all("table")) == []


async def test_what_differs_stands_side_by_side_under_both_verdicts(site: Site) -> None:
    site.api.add_runs(
        run_request(run_id="run_a", notes="first <b>"),
        red_request(run_id="run_b", notes=ABSENT, machine_id="shop_saw_3"),
    )
    page = await site.page("/compare?a=run_a&b=run_b")
    assert [each.words for each in page.all("p", class_="verdict")] == [
        "◆ MAY CUT by this run alone: the run run_b refuses exactly the same file",
        "✖ DO NOT CUT: rim speed above the blade's limit",
    ]
    assert page.one("p", class_="severity").words.startswith("▲ CRITICAL Another program")
    found = rows(page)
    assert found["context.machine_id"] == ["shop_saw_2", "shop_saw_3"]
    assert found["notes"] == ["first <b>", "–"]
    assert found["status"] == ["OK", "BLOCKED"]
    swap = next(each for each in page.all("a") if each.words == "Swap")
    assert swap.attributes["href"] == "/compare?a=run_b&b=run_a"


async def test_equal_runs_differ_in_nothing(site: Site) -> None:
    site.api.add_runs(run_request(run_id="run_a"), run_request(run_id="run_b"))
    page = await site.page("/compare?a=run_a&b=run_b")
    assert "No field that is compared differs." in page.one("main").words
    assert page.one("p", class_="severity").words.startswith("● INFO")
    assert "shop_saw_2" in next(each for each in page.all("details") if "same" in each.words).words


@pytest.mark.parametrize("score", [12, 13])
async def test_programs_that_are_withheld_are_not_said_to_be_the_same(
    score: int, site: Site
) -> None:
    request = red_request()
    outputs = request["outputs"] | {"gcode_text": "G1 X666\n"}
    feasibility = request["feasibility"] | {"score": score}
    site.api.add_runs(
        red_request(run_id="run_a"),
        red_request(run_id="run_b", outputs=outputs, feasibility=feasibility),
    )
    words = (await site.page("/compare?a=run_a&b=run_b")).one("p", class_="severity").words
    assert words.endswith("Programs are withheld or not named: they are not compared.")
    assert "program, risk" not in words.lower()


async def test_what_one_side_withholds_does_not_hide_the_other(site: Site) -> None:
    site.api.add_runs(run_request(run_id="run_a"), red_request(run_id="run_b"))
    page = await site.page("/compare?a=run_a&b=run_b")
    assert [each.attributes["data-toolpath"] for each in page.all("figure")] == [
        "/run/run_a/toolpath.json"
    ]
    assert "b: run_b Withheld A run that is not OK shows nothing" in page.one("main").words


async def test_what_cannot_be_compared_is_said(site: Site) -> None:
    site.api.add_runs(run_request(run_id="run_a"))
    page = await site.page("/compare?a=run_a&b=run_x", 404)
    assert "There is no run run_x." in page.one("main").words
    await site.page("/compare?a=run_a&b=..%2Fx", 422)


async def test_a_damaged_run_is_not_compared(site: Site) -> None:
    site.api.add_runs(run_request(run_id="run_a"), run_request(run_id="run_b"))
    file = next((site.api.root / "runs").glob("*/run_b.json"))
    file.chmod(0o600)
    file.write_bytes(file.read_bytes().replace(b"maple", b"walnu"))
    page = await site.page("/compare?a=run_a&b=run_b", 500)
    assert page.one("h1").words == "This run is damaged: do not cut"
    assert "maple" not in page.text


async def test_a_damaged_attachment_is_a_doubt_here_too(site: Site) -> None:
    site.api.add_runs(
        run_request(run_id="run_a", attachments=[attachment()]), run_request(run_id="run_b")
    )
    (file,) = (each for each in (site.api.root / "attachments").rglob("*") if each.is_file())
    file.chmod(0o600)
    file.write_bytes(b"1\nSECTION\n")
    page = await site.page("/compare?a=run_a&b=run_b")
    assert [each.words for each in page.all("p", class_="verdict")] == [
        "✖ DO NOT CUT: the attachment part.dxf is not what was stored",
        "✔ MAY CUT",
    ]


ALL = "Other program, same toolpath"
CONDITIONS = "Feeds, tools or switches differ"
NOT_ALL = "Not all is drawn"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("M5\n", "(another)\nN7 M05\n", ALL),
        ("G90\nG21", "G21 G90 G17", ALL),
        ("F1200", "F1200\nG1 F1200", ALL),
        ("F1200", "F9000", CONDITIONS),
        ("S18000", "S9000", CONDITIONS),
        ("M3 ", "M4 ", CONDITIONS),
        ("M3 ", "T9 M6\nM3 ", CONDITIONS),
        ("M5\n", "T9 M6\nM5\n", CONDITIONS),
        ("G4 P2", "G4 P20", CONDITIONS),
        ("G4 P2", "G4 P2\nG4 P2", CONDITIONS),
        ("G4 P2", "G4 P2\nG43 H1", CONDITIONS),
        ("G4 P2", "G4 P2\nG55", CONDITIONS),
        ("F1200", "F1200\nM0", CONDITIONS),
        ("M5\n", "#1=-40\nG1 Z#1\nM5\n", NOT_ALL),
        ("M5\n", "G53 G1 Z-100\nM5\n", NOT_ALL),
        ("M5\n", "M98 P1000\nM5\n", NOT_ALL),
        ("M5\n", "G43 H2\nG1 X99\nM5\n", NOT_ALL),
        ("F1200", "A180 F1200", NOT_ALL),
        ("G4 P2", "G4 P2\nG41 D1", NOT_ALL),
        ("G4 P2", "G4 P2\nG92 X0", NOT_ALL),
        ("M30\n", "", NOT_ALL),
    ],
)
def test_two_programs_cut_alike_only_if_all_that_they_say_is_alike(
    old: str, new: str, words: str
) -> None:
    assert GCODE.count(old) == 1
    a, b = (
        moves_of(canonical_json(read_toolpath(program).document()))
        for program in (GCODE, GCODE.replace(old, new))
    )
    assert {"same": ALL, "conditions": CONDITIONS, "drawn": NOT_ALL}[likeness(a, b) or ""] == words


@pytest.mark.parametrize(
    ("changed", "words"),
    [("(another)\nM5\n", ALL), ("M9\nM5\n", CONDITIONS), ("G53 G1 Z-100\nM5\n", NOT_ALL)],
)
async def test_the_page_says_how_much_of_two_programs_is_alike(
    changed: str, words: str, site: Site
) -> None:
    site.api.add_runs(
        run_request(run_id="run_a"),
        run_request(run_id="run_b", outputs={"gcode_text": GCODE.replace("M5\n", changed)}),
    )
    said = (await site.page("/compare?a=run_a&b=run_b")).one("main").words
    assert [each for each in (ALL, CONDITIONS, NOT_ALL) if each in said] == [words]


async def test_another_program_may_move_the_tool_in_the_same_way(site: Site) -> None:
    numbered = "".join(f"N{number} {line}\n" for number, line in enumerate(GCODE.splitlines(), 1))
    site.api.add_runs(
        run_request(run_id="run_a"),
        run_request(run_id="run_b", outputs={"gcode_text": numbered}),
        run_request(run_id="run_c", outputs={"gcode_text": GCODE.replace("X97", "X98")}),
    )
    page = await site.page("/compare?a=run_a&b=run_b")
    assert "Other program, same toolpath" in page.one("main").words
    assert len(list(page.all("figure"))) == 2
    other = await site.page("/compare?a=run_a&b=run_c")
    assert "same toolpath" not in other.one("main").words
    same = await site.page("/compare?a=run_a&b=run_a")
    assert "the very same program" in same.one("main").words
