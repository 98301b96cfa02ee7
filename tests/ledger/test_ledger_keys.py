"""The key file: made once, whole, for its owner alone; anything else is refused."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from pipeline.errors import StoreError, StoreNotReadyError
from pipeline.ledger.keys import load_key, make_key
from pipeline.ledger.tlog.notes import parse_vkey
from tests.ledger.tlog.signers import signer

NAME = "rmos/0123"


def test_a_key_is_made_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "ledger.pem"
    made = make_key(path, NAME)
    loaded = load_key(path, NAME)
    assert loaded.key == made.key == parse_vkey(str(made.key))
    assert loaded.sign("text\n") == made.sign("text\n")
    assert loaded.key.name == NAME


def test_a_key_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_key(tmp_path / "ledger.pem", NAME)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "ledger.pem").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.pem"]


def test_two_keys_differ(tmp_path: Path) -> None:
    assert make_key(tmp_path / "a", NAME).key != make_key(tmp_path / "b", NAME).key


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ledger.pem"
    make_key(path, NAME)
    before = path.read_bytes()
    with pytest.raises(StoreNotReadyError, match=r"There is a ledger key at .* already"):
        make_key(path, NAME)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["ledger.pem"]


def test_without_a_key_the_way_out_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreNotReadyError, match="run rmos ledger init") as caught:
        load_key(tmp_path / "ledger.pem", NAME)
    assert caught.value.exit_status == 6


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "ledger.pem"
    make_key(path, NAME)
    path.chmod(mode)
    with pytest.raises(StoreNotReadyError, match=f"has mode 0{mode:o}.*chmod 600"):
        load_key(path, NAME)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_a_key_that_its_owner_alone_may_use_is_loaded(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "ledger.pem"
    made = make_key(path, NAME)
    path.chmod(mode)
    assert load_key(path, NAME).key == made.key


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.pem"
    make_key(path, NAME)
    os.chown(path, 12345, 12345)
    with pytest.raises(StoreNotReadyError, match="belongs to another user"):
        load_key(path, NAME)


def pem_of(key: X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expected a private key in PEM"),
        (b"not a key", "Expected a private key in PEM"),
        (pem_of(X25519PrivateKey.generate()), "Expected an Ed25519 key"),
        (
            signer().private_key.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")
            ),
            "without a password",
        ),
    ],
    ids=["empty", "text", "x25519", "encrypted"],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "ledger.pem"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(StoreNotReadyError, match=message):
        load_key(path, NAME)


def test_something_else_in_its_place_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (pipe, tmp_path):
        with pytest.raises(StoreNotReadyError, match=r"Expected a file|cannot be read"):
            load_key(path, NAME)


def test_where_it_cannot_be_written_the_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        make_key(tmp_path / "file" / "ledger.pem", NAME)


def test_openssl_reads_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "ledger.pem"
    made = make_key(path, NAME)
    try:
        shown = subprocess.run(
            ["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"],
            capture_output=True,
            check=True,
        )
    except FileNotFoundError:
        pytest.skip("needs the openssl program")
    assert shown.stdout.endswith(made.key.public_key)
