"""Keys to test with: the same ones every time."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.ledger.tlog.notes import NoteSigner


def signer(name: str = "rmos/test", seed: int = 1) -> NoteSigner:
    """Return the signer of a fixed key."""
    return NoteSigner(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))
