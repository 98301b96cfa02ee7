"""Programs that a shop's post-processors wrote: what is drawn of each stays as it is.

The programs lie beside the repository and are not part of it; without them these tests are
skipped. `summaries.json` holds numbers alone. Where a change of the drawing is meant, write it
anew, together with a new DRAWING_VERSION:

    python -m tests.core.toolpath.test_real_programs
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.toolpath import read_toolpath

PROGRAMS = Path(__file__).parents[4] / "shared" / "data" / "gcode"
SUMMARIES = Path(__file__).parent / "summaries.json"
VARIANTS = [f"mvp_rect_with_island__{name}.nc" for name in ("grbl", "linuxcnc", "mach4")]
pytestmark = pytest.mark.skipif(
    not PROGRAMS.is_dir(), reason="the shop's data (shared/data beside the repository) are not here"
)


def summary(name: str) -> dict[str, Any]:
    """Return all of a program's document but its paths, of which it has the ends and counts."""
    document = read_toolpath((PROGRAMS / name).read_bytes()).document()
    paths = document.pop("paths")
    return {
        **document,
        "paths": len(paths),
        "pieces": {
            kind: sum(len(path["lines"]) for path in paths if path["kind"] == kind)
            for kind in ("rapid", "feed", "arc")
        },
        "sum_of_points": round(sum(sum(path["points"]) for path in paths), 1),
        "sum_of_lines": sum(sum(path["lines"]) for path in paths),
    }


def names() -> list[str]:
    return sorted(path.name for path in PROGRAMS.glob("*"))


def test_each_program_is_drawn_as_before() -> None:
    frozen = json.loads(SUMMARIES.read_text())
    assert names() == sorted(frozen)
    for name, expected in frozen.items():
        assert summary(name) == expected, name


def test_three_post_processors_move_alike() -> None:
    drawn = [read_toolpath((PROGRAMS / name).read_bytes()) for name in VARIANTS]
    first, *others = [[(move.kind, move.points) for move in toolpath.moves] for toolpath in drawn]
    assert others == [first, first]
    assert [toolpath.move_count for toolpath in drawn] == [851, 851, 851]
    # Their lines differ: it is the geometry that is the same.
    assert len({toolpath.line_count for toolpath in drawn}) == 3


def test_the_long_body_has_all_its_pieces() -> None:
    toolpath = read_toolpath((PROGRAMS / "LesPaul_Body_Complete.nc").read_bytes())
    assert toolpath.move_count == 36_567
    assert toolpath.is_whole
    assert toolpath.units == "inch"


def test_a_document_has_a_line_for_each_piece_and_paths_that_join() -> None:
    for name in names():
        toolpath = read_toolpath((PROGRAMS / name).read_bytes())
        paths = toolpath.document()["paths"]
        pieces = 0
        for path in paths:
            assert len(path["points"]) == 3 * (len(path["lines"]) + 1)
            assert path["line"] == path["lines"][0]
            assert path["lines"] == sorted(path["lines"])
            pieces += len(path["lines"])
        assert pieces == toolpath.move_count - toolpath.not_drawn_count
        for path, following in pairwise(paths):
            joins = path["points"][-3:] == following["points"][:3]
            assert not (joins and path["kind"] == following["kind"])


if __name__ == "__main__":
    frozen = {name: summary(name) for name in names()}
    SUMMARIES.write_text(json.dumps(frozen, indent=1, sort_keys=True) + "\n")
