"""RunFilter: which runs a listing holds, and which page of it."""

import re
from datetime import date
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from schemas.fields import LABEL_LIMIT_CHARACTERS, SHA256_PATTERN, RiskLevel, RunStatus

DEFAULT_LIMIT: Final = 50
LARGEST_LIMIT: Final = 200

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _check_day(text: str | None) -> str | None:
    try:
        # Python takes other forms too, and a date has one here.
        if text is None or (_DAY.fullmatch(text) and date.fromisoformat(text)):
            return text
    except ValueError:
        pass
    raise PydanticCustomError("date", "expected a date that exists, such as 2025-12-18")


_Text = Annotated[str | None, Field(max_length=LABEL_LIMIT_CHARACTERS)]
_Day = Annotated[
    str | None,
    AfterValidator(_check_day),
    Field(description="UTC date, inclusive.", json_schema_extra={"format": "date"}),
]

_Program = Annotated[
    str | None,
    Field(
        pattern=SHA256_PATTERN,
        description="SHA-256 of a program: runs that cut it, and runs that withhold its bytes.",
    ),
]


class RunFilter(BaseModel):
    """The parameters of a listing, as HTTP, the client and the command line take them.

    Numbers may come as text. None does not filter.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: RunStatus | None = None
    mode: _Text = None
    tool_id: _Text = None
    tool_id_prefix: _Text = None
    event_type: _Text = None
    risk_level: RiskLevel | None = None
    workflow_session_id: _Text = None
    material_id: _Text = None
    machine_id: _Text = None
    gcode_sha256: _Program = None
    date_from: _Day = None
    date_to: _Day = None
    limit: int = Field(DEFAULT_LIMIT, description=f"Clamped to 1 to {LARGEST_LIMIT}.")
    cursor: str | None = Field(None, description="next_cursor of the page before.")

    @classmethod
    def of(cls, **fields: Any) -> Self:  # noqa: ANN401
        """Return the filter with these fields; None is the same as leaving one out.

        Raises:
            ValueError: A field is not known or has a value that cannot be used: one sentence.
        """
        try:
            return cls(**{name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg']}.") from error
