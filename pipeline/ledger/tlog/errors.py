"""The one error of proofs, tiles, notes and leaves that do not hold."""


class EvidenceError(ValueError):
    """The evidence does not hold; its text names what was expected and found."""
