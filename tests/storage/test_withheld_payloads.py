"""What an artifact withholds is read from its kept request, whatever bytes lie there."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.core.hashing import sha256_of_bytes
from pipeline.core.layout import quarantine_path
from pipeline.disk.stored_files import StoredFiles
from pipeline.storage.artifacts import withheld_payloads

PROGRAM = "a" * 64


def naming(sha256: str, *, legacy: bool = False) -> dict[str, Any]:
    """Return the part of a blocked artifact that names its kept request."""
    return {
        "status": "BLOCKED",
        "decision": {"risk_level": "RED"},
        "feasibility": {},
        "provenance": {"request_sha256": sha256, "legacy": legacy},
    }


def keep(root: Path, content: bytes) -> str:
    """Keep `content` as a request; return its SHA-256."""
    sha256 = sha256_of_bytes(content)
    path = root / quarantine_path(sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(0o400)
    return sha256


def test_a_claimed_program_is_withheld(tmp_path: Path) -> None:
    body = b'{"hashes":{"gcode_sha256":"%b"}}' % PROGRAM.encode()
    assert withheld_payloads(StoredFiles(tmp_path), naming(keep(tmp_path, body))) == (PROGRAM,)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "body",
    [b"", b"no JSON", b"[]", b'{"hashes":1}', b'{"meta":1}', b'{"meta":{"v1":[]}}'],
)
def test_bytes_that_no_run_makes_are_no_kept_request(
    tmp_path: Path, body: bytes, legacy: bool
) -> None:
    found = withheld_payloads(StoredFiles(tmp_path), naming(keep(tmp_path, body), legacy=legacy))
    assert found in (None, ())
    assert withheld_payloads(StoredFiles(tmp_path), naming("b" * 64, legacy=legacy)) is None
