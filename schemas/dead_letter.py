"""Headers of a dead letter: why a record can never succeed, and where it came from."""

from typing import Annotated

from pydantic import ConfigDict, Field

from schemas.fields import Frozen, Sha256

ERROR_MESSAGE_LIMIT_BYTES = 1024

_WholeNumber = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]*)$")]


class DeadLetterHeaders(Frozen):
    """Every value is ASCII text. Key, value and foreign headers are those of the record."""

    model_config = ConfigDict(extra="allow", validate_by_name=True, serialize_by_alias=True)

    error_code: str = Field(alias="rmos-error-code", pattern=r"^[A-Z_]{1,64}$")
    error_message: str = Field(
        alias="rmos-error-message", max_length=ERROR_MESSAGE_LIMIT_BYTES, pattern=r"^[ -~]*$"
    )
    source_topic: str = Field(alias="rmos-source-topic")
    source_partition: _WholeNumber = Field(alias="rmos-source-partition")
    source_offset: _WholeNumber = Field(alias="rmos-source-offset")
    source_timestamp: _WholeNumber = Field(
        alias="rmos-source-timestamp", description="The record's broker time, ms since 1970."
    )
    group: str = Field(alias="rmos-group")
    body_sha256: Sha256 | None = Field(None, alias="rmos-body-sha256")
    attempt: _WholeNumber = Field(alias="rmos-attempt", description="1 at first; redrives add 1.")
    body_size: _WholeNumber | None = Field(
        None,
        alias="rmos-body-size",
        description="Bytes of a value too large to carry; the source topic keeps it.",
    )


class CutDeadLetterHeaders(DeadLetterHeaders):
    """As of version 1, and what is said of a key or headers that are too large to carry.

    What is not in the dead letter is kept by the source topic, at the source offset.
    """

    key_sha256: Sha256 | None = Field(None, alias="rmos-key-sha256")
    key_size: _WholeNumber | None = Field(
        None, alias="rmos-key-size", description="Bytes of a key too large to carry."
    )
    headers_sha256: Sha256 | None = Field(
        None,
        alias="rmos-headers-sha256",
        description="Of all headers of the record, some of which are too large to carry: each "
        "name and each value, with its length before it as four bytes, the highest first; "
        "ffffffff in place of a value that is not there.",
    )
    headers_size: _WholeNumber | None = Field(
        None,
        alias="rmos-headers-size",
        description="Bytes of all names and values of its headers.",
    )
    headers_count: _WholeNumber | None = Field(
        None, alias="rmos-headers-count", description="How many headers it has."
    )
