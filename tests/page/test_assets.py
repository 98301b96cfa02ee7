"""Assets: small, under the hash of their content, and what they were when they were fetched."""

import hashlib
import re
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

from pipeline.page.assets import assets
from tests.page.conftest import Site

ROOT = Path(__file__).parents[2]
HTMX_SHA256 = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
"""Of `dist/htmx.min.js` in htmx.org 2.0.11, as `npm pack` fetched it."""

LIMIT_BYTES = 150_000


def test_htmx_is_the_one_that_was_fetched() -> None:
    vendored = assets()["vendor/htmx-2.0.11.min.js"]
    assert hashlib.sha256(vendored.content).hexdigest() == HTMX_SHA256
    assert b"Zero-Clause BSD" in assets()["vendor/htmx-LICENSE.txt"].content


def test_all_assets_together_are_small() -> None:
    assert sum(len(asset.content) for asset in assets().values()) <= LIMIT_BYTES


async def test_an_asset_is_kept_for_good_under_the_hash_of_its_content(site: Site) -> None:
    for asset in assets().values():
        answer = await site.get(asset.path)
        assert answer.content == asset.content
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert hashlib.sha256(asset.content).hexdigest().startswith(asset.path.split("/")[2])


@pytest.mark.parametrize("path", ["0000000000000000/rmos.css", "rmos.css", "../pages.py"])
async def test_an_asset_has_no_other_path(site: Site, path: str) -> None:
    assert (await site.get(f"/static/{path}")).status_code == 404


def test_the_sheet_and_the_scripts_load_nothing() -> None:
    own = {name: asset for name, asset in assets().items() if not name.startswith("vendor/")}
    assert {"rmos.css", "icon.svg"} <= own.keys()
    for name, asset in own.items():
        text = asset.content.decode().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|//\w|url\(|@import", text), name


@pytest.mark.slow
def test_the_wheel_has_them_all(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "-q",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True)
    packed = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    templates = [each.name for each in (files("pipeline.page") / "templates").iterdir()]
    assert {f"pipeline/page/static/{name}" for name in assets()} <= packed
    assert {f"pipeline/page/templates/{name}" for name in templates} <= packed
