"""The one error of proofs, tiles, notes and leaves that do not hold."""


class EvidenceError(ValueError):
    """The evidence does not hold; its text says what was expected and what was found."""
