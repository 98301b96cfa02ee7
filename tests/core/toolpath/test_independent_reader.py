"""What is drawn, compared with an independent reader: npm's gcode-toolpath, under Node.

It knows less than ours and says nothing of what it does not know, so it is asked only about what
both know. `npm ci` installs the locked version into the user's cache folder, once.
"""

import hashlib
import json
import math
import os
import random
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.toolpath import read_toolpath
from pipeline.core.toolpath.moves import Move, Point
from tests.core.toolpath.test_real_programs import PROGRAMS, names

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "independent_reader"
LOCK = "package-lock.json"
MANIFEST = "package.json"
# The axes of each plane, and the one across it; the reader has the points of arcs in this order.
PLANES = {"G17": (0, 1, 2), "G18": (2, 0, 1), "G19": (1, 2, 0)}
KINDS = {"G0": "rapid", "G1": "feed", "G2": "arc", "G3": "arc"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the independent reader, installed as the lock file says."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.fail("The independent reader needs Node and npm: apt-get install nodejs npm")
    lock = (HERE / LOCK).read_bytes()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "rmos-runs-tests" / f"gcode-toolpath-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not folder.exists():
        making = tmp_path_factory.mktemp("npm")
        for name in (LOCK, MANIFEST):
            shutil.copy(HERE / name, making / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        made = subprocess.run(
            command, cwd=making, capture_output=True, text=True, timeout=300, check=False
        )
        assert made.returncode == 0, f"npm ci failed: {made.stderr}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(making, folder, dirs_exist_ok=True)
    return folder


def read_independently(installed: Path, program: str) -> list[dict[str, Any]]:
    """Return the moves of a program, the points of arcs in the order of the axes too."""
    command = ["node", str(HERE / "read.cjs"), str(installed)]
    done = subprocess.run(
        command, input=program.encode(), capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    moves: list[dict[str, Any]] = json.loads(done.stdout)
    for move in moves:
        if "centre" in move:
            for name in ("start", "end", "centre"):
                there = dict(zip(PLANES[move["plane"]], move[name], strict=True))
                move[name] = [there[axis] for axis in range(3)]
    return moves


def assert_same(ours: list[Move], theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs)
    for move, other in zip(ours, theirs, strict=True):
        assert move.kind == KINDS[other["motion"]], move
        if move.points:
            assert move.points[0] == pytest.approx(other["start"], abs=1e-6), move
            assert move.points[-1] == pytest.approx(other["end"], abs=1e-6), move
            if "centre" in other:
                assert_same_arc(move.points, other)


def assert_same_arc(points: tuple[Point, ...], other: dict[str, Any]) -> None:
    """Each chord goes around the same centre, in the direction of G2 or G3, and on to the end."""
    first, second, _ = PLANES[other["plane"]]
    centre = other["centre"]
    radius = math.hypot(
        other["start"][first] - centre[first], other["start"][second] - centre[second]
    )
    spots = [(point[first] - centre[first], point[second] - centre[second]) for point in points]
    turned = 0.0
    for a, b in pairwise(spots):
        assert math.hypot(*b) == pytest.approx(radius, rel=1e-3, abs=0.06)
        turned += math.atan2(a[0] * b[1] - a[1] * b[0], a[0] * b[0] + a[1] * b[1])
    assert turned * (1 if other["motion"] == "G3" else -1) >= -1e-9
    ends = [math.atan2(y, x) for x, y in (spots[0], spots[-1])]
    assert math.remainder(turned - (ends[1] - ends[0]), math.tau) == pytest.approx(0, abs=1e-6)
    assert abs(turned) <= math.tau + 1e-6
    if spots[0] == pytest.approx(spots[-1], abs=1e-9):
        assert abs(turned) == pytest.approx(math.tau)


@pytest.mark.skipif(
    not PROGRAMS.is_dir(), reason="the shop's data (shared/data beside the repository) are not here"
)
def test_real_programs(installed: Path) -> None:
    for name in names():
        program = (PROGRAMS / name).read_text()
        toolpath = read_toolpath(program)
        theirs = read_independently(installed, program)
        assert_same(toolpath.moves, theirs)
        known = [
            (move.kind, math.dist(other["start"], other["end"]))
            for move, other in zip(toolpath.moves, theirs, strict=True)
            if move.points and "centre" not in other
        ]
        rapid = sum(length for kind, length in known if kind == "rapid")
        assert toolpath.rapid_mm == pytest.approx(rapid)


def made_program(seed: int) -> str:
    """Return a program of all that both readers know, with true arcs in every plane."""
    choose = random.Random(seed)
    lines = ["G21", "G90", "G17", "G94", "F600", "G0 X0 Y0 Z0"]
    for _ in range(300):
        what = choose.random()
        x, y, z = (round(choose.uniform(-50, 50), 4) for _ in range(3))
        if what < 0.1:
            lines.append(choose.choice(["G20", "G21", "G90", "G91"]))
        elif what < 0.6:
            words = [f"X{x}", f"Y{y}", f"Z{z}"][: choose.randint(1, 3)]
            lines.append(" ".join([choose.choice(["G0", "G1"]), *words]))
        else:
            lines += made_arc(choose)
    return "\n".join([*lines, "M30"])


def made_arc(choose: random.Random) -> list[str]:
    """Return an arc by distances: a part of a circle by its centre or its radius, or all of it."""
    plane = choose.choice(list(PLANES))
    first, second, across = PLANES[plane]
    radius = round(choose.uniform(0.5, 40), 3)
    turn = choose.choice(["G2", "G3"])
    sign = 1 if turn == "G3" else -1
    offsets = ["I", "J", "K"][first], ["I", "J", "K"][second]
    a, b, c = "XYZ"[first], "XYZ"[second], "XYZ"[across]
    climb = choose.choice(["", f" {c}{round(choose.uniform(-5, 5), 3)}"])
    arcs = [
        f"{turn} {a}{-2 * radius} {b}0 {offsets[0]}{-radius} {offsets[1]}0",
        f"{turn} {a}{-radius} {b}{sign * radius} {offsets[0]}{-radius} {offsets[1]}0",
        f"{turn} {a}{-radius} {b}{sign * radius} R{radius}",
        f"{turn} {a}{-radius} {b}{-sign * radius} {offsets[0]}{-radius} {offsets[1]}0",
        f"{turn} {a}{-radius} {b}{-sign * radius} R{-radius}",
        f"{turn} {a}0 {b}0 {offsets[0]}{-radius} {offsets[1]}0",
    ]
    return [f"{plane} G91", choose.choice(arcs) + climb, "G90"]


@pytest.mark.parametrize("seed", range(12))
def test_made_programs(installed: Path, seed: int) -> None:
    program = made_program(seed)
    toolpath = read_toolpath(program)
    assert toolpath.remarks == [] or {each.what for each in toolpath.remarks} == {
        "Moves without a feed rate (F) are not in the time."
    }
    assert_same(toolpath.moves, read_independently(installed, program))
