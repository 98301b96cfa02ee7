"""The texts of a bundle: what it proves, what it does not prove, and how to check it."""

from textwrap import wrap

from pipeline.evidence.evidence import NamedAttachment, RunEvidence

PROVES = (
    "The log of the store recorded the artifact with exactly these bytes, and each advisory shown "
    "with it. With a checkpoint that you hold: it did so before you were given that checkpoint, "
    "and nobody can have changed it since, not even the owner of the key.",
    "With the key of the log: its owner signed a checkpoint that covers them.",
    "The verdict, its reasons, and every hash in the artifact are those that were recorded. The "
    "hashes of the evaluation, of toolpaths, operation plan and G-code can be computed again from "
    "what is here.",
    "An attachment that is here has the content that the artifact names.",
)
DOES_NOT_PROVE = (
    "That what the request said was true: who may publish requests is trusted to evaluate them.",
    "When it was created: created_at_utc is the sender's word. The broker's time and the place in "
    "the log bound it.",
    "That there is nothing else: another run about the same job, or another advisory about this "
    "one, would be in the same log and need not be in this bundle.",
    "What a machine did afterwards.",
    "That the owner of the key shows everybody the same log: compare checkpoints with others who "
    "hold some.",
    "Anything in report.html, README.txt and verify.py: they explain. SHA256SUMS shows that they "
    "are undamaged, and no leaf covers them: whoever makes a bundle writes them. The artifact "
    "under files/runs is the record.",
)
WITHHELD = (
    "The whole request of a run that is not OK is kept in the store's quarantine and is no part of "
    "any bundle: it holds what was redacted and what a machine must not cut. The artifact names "
    "what was withheld, by hash."
)
HOW_TO_CHECK = (
    "python3 verify.py BUNDLE.zip --key VKEY",
    "python3 verify.py BUNDLE.zip --trusted FILE",
)
ABOUT_TRUST = (
    "The key (VKEY) or the trusted checkpoints (FILE, as `rmos ledger checkpoint` printed it) must "
    "come to you from outside this bundle, best of all earlier. Whoever makes a false bundle makes "
    "a key for it too, and another verify.py: take that from a source of your own as well. It "
    "needs Python 3.9 or newer and nothing else. Exit status: 0 proven, 1 refused, 2 unreadable, "
    "3 consistent with itself, origin not proven, 4 incomplete: something named is not here."
)
_FILES = (
    ("files/", "the store's own files, under the paths that they have there"),
    ("SHA256SUMS", "the hash of every other file: sha256sum -c SHA256SUMS"),
    ("records/*.leaf", "what the log says of each of them, the exact bytes that were hashed"),
    ("records/*.tlog-proof", "index, inclusion proof, signed checkpoint (c2sp.org/tlog-proof)"),
    ("records/*.consistency", "that the log begins with a checkpoint that you hold, if asked for"),
    ("vkeys.txt", "the keys that signed the checkpoints, as the store says"),
    ("report.html", "the run, readable"),
    ("verify.py", "checks all of it; Python's standard library alone"),
)
_WIDTH = 96


def readme(evidence: RunEvidence) -> str:
    """Return the text of README.txt."""
    return "\n".join(
        [
            f"Evidence about the run {evidence.run_id}",
            f"of the store {evidence.store_id}.",
            "",
            *_heading("Check it"),
            *(f"    {command}" for command in HOW_TO_CHECK),
            "",
            *_wrapped(ABOUT_TRUST),
            "",
            *_heading("What it proves"),
            *(line for claim in PROVES for line in _wrapped(claim, "* ")),
            "",
            *_heading("What it does not prove"),
            *(line for claim in DOES_NOT_PROVE for line in _wrapped(claim, "* ")),
            "",
            *_heading("What is not in it"),
            *_wrapped(WITHHELD),
            *_left_out(evidence.left_out),
            "",
            *_heading("What is in it"),
            *(f"{name:<22} {meaning}" for name, meaning in _FILES),
            "",
        ]
    )


def _left_out(attachments: list[NamedAttachment]) -> list[str]:
    if not attachments:
        return ["All attachments that are named are in it."]
    return ["Attachments that are named and not in it:"] + [
        f"    {each.state}  {each.sha256}  {each.kind}" for each in attachments
    ]


def _heading(text: str) -> list[str]:
    return [text, "-" * len(text)]


def _wrapped(paragraph: str, first: str = "") -> list[str]:
    return wrap(
        paragraph,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
