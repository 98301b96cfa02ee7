"""Make the pictures of the README anew: `.venv/bin/python -m tests.browser.screenshots`.

They show the real pages over a store that is made for them. What is drawn is the same each time,
but for the fonts of the machine and the time at which the list was asked for.
"""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.conftest import chromium_path, served, settle
from tests.builders import advisory_request, red_request, router_request, run_request
from tests.evidence.proven_stores import proven_store
from tests.ledger.ledgers import KEYS

DOCS = Path(__file__).parents[2] / "docs"
COLORS = 96
ABOVE_MM, LEAST_MM = 5.0, 12.0


def body() -> Iterator[str]:
    """Yield the lines of a program: a round pocket around an island, in four depths."""
    yield from ("(pocket with island, 6 mm endmill)", "G21 G90 G17", "T1 M6", "M3 S18000", "G0 Z5")
    for depth in (-3, -6, -9, -12):
        for ring in range(9):
            radius = LEAST_MM + 5 * ring
            points = [
                (
                    1.5 * radius * math.cos(angle),
                    radius * (1 + 0.18 * math.cos(2 * angle)) * math.sin(angle),
                )
                for angle in (math.tau * step / 60 for step in range(61))
            ]
            yield f"G0 X{points[0][0]:.3f} Y{points[0][1]:.3f}"
            yield f"G1 Z{depth} F300"
            yield from (f"G1 X{x:.3f} Y{y:.3f} F1800" for x, y in points[1:])
            yield f"G0 Z{ABOVE_MM}"
    yield from ("M5", "M30")


def make_store(root: Path) -> None:
    """Make a store of a working day."""
    outputs = {"gcode_text": "\n".join(body()) + "\n"}
    requests = [
        run_request(run_id="run_4c1d7be2", created_at_utc="2026-03-02T07:58:11Z"),
        red_request(run_id="run_8a55e0f3", created_at_utc="2026-03-02T08:12:40Z"),
        router_request(run_id="run_c2f9a4d6", created_at_utc="2026-03-02T08:31:05Z"),
        run_request(
            run_id="run_e7039b1a", created_at_utc="2026-03-02T08:47:52Z", material_id="walnut"
        ),
        run_request(
            run_id="run_5d20c8e4",
            created_at_utc="2026-03-02T09:05:27Z",
            mode="router",
            tool_id="adaptive:endmill_6",
            material_id="mahogany",
            machine_id="router_1",
            feasibility={
                "mode": "router",
                "tool_id": "adaptive:endmill_6",
                "risk_level": "GREEN",
                "score": 94,
                "blocking": False,
                "warnings": [],
                "engine_version": "feasibility_engine_v1",
                "details": {"chip_load_mm": 0.05, "stepdown_mm": 3.0, "stepover_mm": 5.0},
            },
            outputs=outputs,
        ),
    ]
    proven_store(
        root,
        requests=[(0, request) for request in requests],
        advisories=[(0, advisory_request(run_id="run_5d20c8e4", advisory_id="adv_1"))],
    )


def keep(png: bytes, name: str) -> None:
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLORS)
    picture.save(DOCS / name, optimize=True)


def main() -> None:
    """Write `docs/page-run.png` and `docs/page-runs.png`."""
    with (
        TemporaryDirectory() as folder,
        patch("pipeline.storage.ledger_key.verifier_keys", lambda *_: KEYS),
    ):
        root = Path(folder) / "store"
        make_store(root)
        with served(root, {}) as (address,), sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium_path(), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1200, "height": 860}, base_url=address)
            page.goto("/run/run_5d20c8e4")
            settle(page)
            page.get_by_role("button", name="At an angle").click()
            page.locator("h1").click()
            page.evaluate("new Promise((done) => setTimeout(done, 300))")
            keep(page.screenshot(), "page-run.png")
            page.set_viewport_size({"width": 1200, "height": 560})
            page.goto("/")
            keep(page.screenshot(), "page-runs.png")
            browser.close()


if __name__ == "__main__":
    main()
