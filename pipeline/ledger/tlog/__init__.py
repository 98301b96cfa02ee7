"""RFC 6962 trees and C2SP tiles, notes and checkpoints: pure, and nothing of ours."""


class EvidenceError(ValueError):
    """A proof, tile, note or leaf does not hold; its text names what was expected and found."""
