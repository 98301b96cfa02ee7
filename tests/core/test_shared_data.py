"""What a real shop's CAM system produced, through the same core.

The data lie beside the repository and are not part of it; without them these tests are skipped.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.runs.verdict import JudgedRun
from tests.builders import judge, judged, run_request, sha256

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the shop's data (shared/data beside the repository) are not here"
)


def read_json(name: str) -> Any:
    path = DATA / name
    return json.loads(path.read_text()) if path.exists() else {}


GCODE = sorted(path.name for path in DATA.glob("gcode/*"))
SCENARIOS = read_json("scenarios.json").get("scenarios", [])
V1_ROWS: dict[str, Any] = read_json("v1/runs.json")
FEASIBILITY = {
    "185df51c75fed77dab6dc6579619d2f880d9225f6fcdefca4b9cbaa9b98ad214": "GREEN",
    "4551a6f296b60ededde8c302b7b5af9eb8420b1106bb60638c990e0c2407607a": "YELLOW",
    "d12cf8b3e3617cf777449c7c66dbc53d720a297265e9450baaed2b7280a5335d": "RED",
}


def blob(sha256_: str) -> Any:
    (path,) = DATA.glob(f"attachments/{sha256_[:2]}/{sha256_[2:4]}/{sha256_}*")
    return json.loads(path.read_text())


def test_the_data_are_those_that_these_tests_know() -> None:
    assert len(GCODE) == 7
    assert len(SCENARIOS) == 30
    assert len(V1_ROWS) == 13


@pytest.mark.parametrize("name", GCODE)
def test_a_real_program_is_kept_byte_for_byte(name: str) -> None:
    program = (DATA / "gcode" / name).read_bytes()
    run = judged(run_request(outputs={"gcode_text": program.decode()}))
    document = run.built.document
    assert document["status"] == "OK"
    assert document["hashes"]["gcode_sha256"] == sha256(program)
    if len(program) > 204_800:
        assert [kept.content for kept in run.built.blobs] == [program]
        assert document["attachments"][0]["sha256"] == sha256(program)
    else:
        assert document["outputs"]["gcode_text"].encode() == program
        assert run.built.blobs == ()


def test_one_real_program_is_large_and_not_ascii() -> None:
    large = [name for name in GCODE if (DATA / "gcode" / name).stat().st_size > 204_800]
    assert large == ["LesPaul_Body_Complete.nc"]
    assert not (DATA / "gcode" / large[0]).read_bytes().isascii()


@pytest.mark.parametrize("place", ["top", "safety", "decision"])
@pytest.mark.parametrize(("name", "risk"), FEASIBILITY.items())
def test_a_real_evaluation_is_judged_right_wherever_it_lies(
    name: str, risk: str, place: str
) -> None:
    evaluation = blob(name)
    feasibility = evaluation if place == "top" else {"mode": "router", place: evaluation}
    document = judged(run_request(feasibility=feasibility)).built.document
    assert document["decision"]["risk_level"] == risk
    assert document["status"] == ("BLOCKED" if risk == "RED" else "OK")
    assert document["decision"].get("block_reason") == (
        "; ".join(evaluation["blocking_reasons"]) or None
    )
    assert document["decision"]["warnings"] == evaluation["warnings"]
    assert document["feasibility"] == feasibility


@pytest.mark.parametrize("name", FEASIBILITY)
def test_a_real_evaluation_has_the_hash_that_its_name_says(name: str) -> None:
    # The legacy store named a JSON blob by the hash of its canonical form.
    run = judged(run_request(feasibility=blob(name)))
    assert run.built.document["hashes"]["feasibility_sha256"] == name


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["id"])
def test_a_scenario_is_ok_exactly_where_its_decision_is_safe(scenario: dict[str, Any]) -> None:
    expected = scenario["expected"]["decision"]
    for risk in [expected] if isinstance(expected, str) else expected:
        run = judge(
            run_request(
                run_id=scenario["id"],
                request=scenario["input"],
                feasibility={"risk_level": risk, "rules": scenario["expected"]},
            )
        )
        assert isinstance(run, JudgedRun)
        document = run.built.document
        assert document["request_summary"] == scenario["input"]
        assert document["decision"]["risk_level"] == risk
        assert document["status"] == ("OK" if risk in {"GREEN", "YELLOW"} else "BLOCKED")
        assert bool(document["outputs"]) == (document["status"] == "OK")


@pytest.mark.parametrize("run_id", V1_ROWS)
def test_a_v1_row_is_judged_by_what_its_evaluation_says(run_id: str) -> None:
    row = V1_ROWS[run_id]
    run = judged(
        run_request(
            run_id=run_id,
            created_at_utc=row["created_at_utc"],
            mode=row["mode"] or "unknown",
            tool_id=row["tool_id"],
            feasibility=row["feasibility"],
        )
    )
    document = run.built.document
    if row["feasibility"] is None:
        assert document["decision"]["block_reason"] == "INCOMPLETE_REQUEST: feasibility"
        return
    safety = row["feasibility"]["safety"]
    assert document["decision"]["risk_level"] == safety["risk_level"]
    assert document["status"] == ("OK" if safety["risk_level"] == "GREEN" else "BLOCKED")
    assert document["decision"].get("block_reason") == safety["block_reason"]
    assert document["decision"]["warnings"] == safety["warnings"]
    assert document["created_at_utc"] == row["created_at_utc"].replace("+00:00", "Z")
