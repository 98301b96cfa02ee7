"""The verdict of a run in words for a person: whether a machine may cut by it, and why not."""

from pipeline.core.runs.safety import CUTTABLE_RISKS

_PLACES = "decision, feasibility, its decision and its safety"
_MEANINGS = {
    "RISK_UNKNOWN": f"no risk_level is in {_PLACES}, or one of them is UNKNOWN or another word",
    "RISK_RED": f"the worst risk_level in {_PLACES} is RED",
    "RISK_ERROR": f"the worst risk_level in {_PLACES} is ERROR",
    "PRODUCER_BLOCKED": "the status of the request itself is BLOCKED",
    "FEASIBILITY_BLOCKING": "feasibility, its decision or its safety says blocking: true",
    "PRODUCER_ERROR": "the status of the request itself is ERROR, or it has an error",
}


def explained(block_reason: str | None) -> str:
    """Return the reason of a run that is not OK for a person: what a code of ours looked at."""
    if block_reason is None:
        return ""
    meaning = _MEANINGS.get(block_reason)
    return block_reason if meaning is None else f"{block_reason}: {meaning}"


def verdict_words(
    *, may_cut: bool, status: str, risk_level: str, block_reason: str | None = None
) -> str:
    """Return `MAY CUT`, or `DO NOT CUT: ` and the first reason that there is.

    The fields are those of an event, of an artifact's row or of an item of a listing. `may_cut`
    alone decides. The reason is the producer's text as it stands: where it is shown, it is shown
    as any other text of a producer.

    Args:
        may_cut: Whether a machine may cut by the run.
        status: OK, BLOCKED or ERROR.
        risk_level: GREEN, YELLOW, RED, UNKNOWN or ERROR.
        block_reason: That of the decision, where it has one.
    """
    if may_cut:
        return "MAY CUT"
    if status != "OK":
        reason = explained(block_reason) or f"its status is {status}"
    elif risk_level not in CUTTABLE_RISKS:
        reason = f"its risk is {risk_level}"
    else:
        reason = "it is history of an older store, which no machine cuts by"
    return f"DO NOT CUT: {reason}"
