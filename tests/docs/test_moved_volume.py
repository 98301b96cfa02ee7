"""The document of a volume that moves: units wait for the volume, and errors are worded so."""

import re

import pytest

from tests.docs.test_documents import PIPELINE, ROOT, text_of

UNITS = sorted((ROOT / "docs" / "systemd").glob("*.service"))
SENTENCES = (
    "There is no store at",
    "There is no ledger key at",
    "Expected the public key of",
    "nothing was acknowledged",
    "offsets not committed",
)


def test_every_unit_waits_for_the_volume_that_fstab_mounts() -> None:
    (line,) = re.findall(r"^ +UUID=.*$", text_of("moved-volume.md"), re.MULTILINE)
    _, mount_point, _, options, *_ = line.split()
    assert {"nofail", "errors=remount-ro"} <= set(options.split(","))
    assert len(UNITS) == 4
    for unit in UNITS:
        assert f"\nRequiresMountsFor={mount_point}\n" in unit.read_text(encoding="utf-8")


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_that_is_quoted_is_one_of_the_program(sentence: str) -> None:
    assert sentence in text_of("moved-volume.md") + text_of("runbook/host.md")
    assert any(sentence in each.read_text(encoding="utf-8") for each in PIPELINE.rglob("*.py"))
