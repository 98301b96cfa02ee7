"""The one error of whatever is offered as evidence: proofs, tiles, notes, leaves."""


class EvidenceError(ValueError):
    """The evidence does not hold; its text says what was expected and what was found."""
