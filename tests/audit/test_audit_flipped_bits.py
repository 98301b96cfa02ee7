"""One flipped bit anywhere in a store of over 1,000 files is found, every time, with its path."""

import random
from pathlib import Path

import pytest

from tests.audit.audited import (
    LARGE_GCODE,
    Template,
    add_advisories,
    add_runs,
    advisory,
    advisory_record,
    audit,
    flip,
    run,
    run_record,
)
from tests.builders import ABSENT, attachment
from tests.storage.stores import files, make_store

RUNS = 450
SEEDS = range(3)


def _request(number: int) -> dict[str, object]:
    chance = random.Random(number)
    date = f"2025-12-{1 + number % 7:02d}"
    if number % 5 == 0:
        return run(number, date, feasibility={"risk_level": "RED", "n": number})
    if number % 5 == 1:
        drawing = attachment(chance.randbytes(1 + number), created_at_utc=f"{date}T10:00:00Z")
        return run(number, date, attachments=[drawing])
    if number % 50 == 2:
        return run(number, date, outputs={"gcode_text": f"({number})\n{LARGE_GCODE}"})
    return run(number, date)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    root = tmp_path_factory.mktemp("large") / "store"
    root.mkdir()
    make_store(root)
    offsets = [0, 0]
    records = []
    for number in range(RUNS):
        # Most in one partition: its log has a full tile.
        partition = int(number % 3 == 0)
        records.append(run_record(_request(number), offsets[partition], partition=partition))
        offsets[partition] += 1
    add_runs(root, records)
    contents = ({}, {"content_text": ABSENT, "kind": "note"})
    links = [
        advisory(n, f"run_{n}", created_at_utc="2025-12-20T00:00:00Z", **contents[n % 2])
        for n in range(300)
    ]
    for n in range(0, 300, 2):
        links[n]["content_text"] = f"Explanation {n}."
    add_advisories(root, [advisory_record(link, n) for n, link in enumerate(links)])
    return Template(root)


@pytest.fixture
def store(template: Template, tmp_path: Path) -> Path:
    return template.copy_to(tmp_path / "store")


def _evidence(store: Path) -> list[str]:
    """The files that are signed, hashed or named by their hash: all but locks."""
    return [path for path in files(store) if not path.endswith("/lock")]


def _random_bit(store: Path, path: str, chance: random.Random) -> int:
    return chance.randrange((store / path).stat().st_size * 8)


def test_the_store_has_a_thousand_files_and_no_finding(store: Path) -> None:
    paths = _evidence(store)
    areas = {path.partition("/")[0] for path in paths}
    assert areas == {"runs", "attachments", "quarantine", "ledger"}
    assert len(paths) >= 1_000
    assert any("tile/1/" in path for path in paths)
    assert audit(store).findings == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bit_of_every_file_is_found_at_its_path(store: Path, seed: int) -> None:
    """All at once: what a file has does not depend on the others."""
    chance = random.Random(seed)
    changed = [path for path in _evidence(store) if not path.startswith("ledger/")]
    for path in changed:
        flip(store / path, _random_bit(store, path, chance))
    found = audit(store)
    assert sorted(each.path for each in found.findings) == sorted(changed)
    assert found.codes == {"BYTES_DIFFER", "ATTACHMENT_DIFFERS", "QUARANTINE_DIFFERS"}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bit_of_each_tile_and_checkpoint_alone_is_found_at_its_path(
    store: Path, seed: int
) -> None:
    chance = random.Random(seed)
    for path in _evidence(store):
        if path.startswith("ledger/"):
            bit = _random_bit(store, path, chance)
            flip(store / path, bit)
            # The ledger is read as a whole whatever the scope.
            found = audit(store, scope={"run_ids": ["run_0"]})
            assert [each.path for each in found.findings] == [path], (path, bit, found.findings)
            assert found.codes <= {"TILE_DIFFERS", "CHECKPOINT_DIFFERS"}
            flip(store / path, bit)


@pytest.mark.parametrize("seed", range(20))
def test_a_bit_of_any_file_alone_is_found_at_its_path(store: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = chance.choice(_evidence(store))
    flip(store / path, _random_bit(store, path, chance))
    assert [each.path for each in audit(store).findings] == [path]
