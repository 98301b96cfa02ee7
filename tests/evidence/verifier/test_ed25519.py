"""The verifier's own Ed25519: the RFC's vectors, another implementation, and what is refused."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evidence.verifier.verify import BASE, D, L, P, decode_point, verify_ed25519
from tests.evidence.verifier.rfc8032 import VECTORS

KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
MESSAGE = b"a checkpoint\n"
SIGNATURE = KEY.sign(MESSAGE)

SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
"""All eight points whose order divides 8."""


@pytest.mark.parametrize(("name", "key", "message", "signature"), VECTORS, ids=lambda v: v[:20])
def test_the_vectors_of_the_rfc(name: str, key: str, message: str, signature: str) -> None:
    given_ = [bytes.fromhex(each) for each in (key, message, signature)]
    assert verify_ed25519(*given_)
    assert not verify_ed25519(given_[0], given_[1] + b"\x00", given_[2])
    assert len(given_[1]) == {"TEST 1024": 1023, "TEST SHA(abc)": 64}.get(name, len(given_[1]))


def test_there_are_all_five_of_them() -> None:
    assert [len(bytes.fromhex(message)) for _, _, message, _ in VECTORS] == [0, 1, 2, 1023, 64]


def test_the_constants_are_those_of_section_5_1() -> None:
    assert (121666 * D + 121665) % P == 0
    assert BASE[0] == 15112221349535400772501151409588531511454012693041857206046113283949847762202
    assert BASE[1] == 46316835694926478169428394003475163141307993866256225615783033603165251855960


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_what_another_implementation_signs_verifies(seed: bytes, message: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    assert verify_ed25519(key.public_key().public_bytes_raw(), message, key.sign(message))


def test_every_bit_of_key_message_and_signature_counts() -> None:
    for place in range(3):
        whole = [PUBLIC, MESSAGE, SIGNATURE]
        for bit in range(len(whole[place]) * 8):
            changed = bytearray(whole[place])
            changed[bit // 8] ^= 1 << bit % 8
            assert not verify_ed25519(*whole[:place], bytes(changed), *whole[place + 1 :])


def test_s_plus_the_order_is_refused() -> None:
    """The same signature in another form: section 5.1.7 takes S below L alone."""
    s = int.from_bytes(SIGNATURE[32:], "little")
    for more in range(1, 16):
        if s + more * L < 2**256:
            other = SIGNATURE[:32] + (s + more * L).to_bytes(32, "little")
            assert not verify_ed25519(PUBLIC, MESSAGE, other)


@pytest.mark.parametrize("encoded", SMALL_ORDER)
def test_a_key_of_small_order_signs_nothing(encoded: str) -> None:
    key = bytes.fromhex(encoded)
    identity = (1).to_bytes(32, "little")
    for r in [identity, *map(bytes.fromhex, SMALL_ORDER)]:
        assert not verify_ed25519(key, MESSAGE, r + b"\x00" * 32)


def test_points_that_are_not_in_their_one_form_are_refused() -> None:
    for y in (P, P + 1, 2**255 - 1):
        assert decode_point(y.to_bytes(32, "little")) is None
    # x is zero, and there is no negative zero.
    assert decode_point((1 | 1 << 255).to_bytes(32, "little")) is None
    assert decode_point(((P - 1) | 1 << 255).to_bytes(32, "little")) is None
    # No point of the curve has this y.
    assert decode_point((2).to_bytes(32, "little")) is None
    assert decode_point((1).to_bytes(32, "little")) == (0, 1, 1, 0)


@pytest.mark.parametrize(
    ("key", "signature"),
    [(b"", SIGNATURE), (PUBLIC[:-1], SIGNATURE), (PUBLIC, b""), (PUBLIC, SIGNATURE + b"\x00")],
)
def test_other_lengths_are_refused(key: bytes, signature: bytes) -> None:
    assert not verify_ed25519(key, MESSAGE, signature)
