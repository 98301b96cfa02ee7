"""RedriveRecord: the memory that a dead letter was brought back, so that it is so once."""

from typing import Final, Literal

from pydantic import Field

from schemas.fields import Frozen, Label
from schemas.run_event import EventSource

REDRIVE_VERSION: Final = "rmos.redrive/1"


class RedriveRecord(Frozen):
    """One for every redriven record, in one transaction with it; its key is `source` as text."""

    schema_version: Literal["rmos.redrive/1"] = REDRIVE_VERSION
    source: EventSource = Field(description="The record that was refused.")
    dead_letter: EventSource = Field(description="The dead letter that was brought back.")
    code: Label = Field(description="Why it had been refused.")
    redriven_as: EventSource = Field(description="Where the same record is now.")
    attempt: int = Field(ge=1, description="As in the header `rmos-attempt` of that record.")
