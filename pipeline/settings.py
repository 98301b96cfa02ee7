"""Every setting, read once from the environment (prefix `RMOS_`) and frozen.

Sizes, limits and patterns that decide bytes or verdicts are no settings: they are constants
of a schema version.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pipeline.errors import InputError
from pipeline.topics import KEEP_FOREVER_MS, REQUEST_PARTITIONS, TopicNames

PREFIX = "RMOS_"

_SIMILAR = 0.8
"""From which likeness on (difflib) an unknown name is taken for a known one that is mistyped. The
variables of the original system, which a neighbour program may read, all lie below it."""

FORMER_SETTINGS = {
    "ADVISORY_RETRY_SECONDS": "the four delays of the retry topics are now one number, "
    "RMOS_ADVISORY_WAIT_SECONDS, by default their sum of 755. Set that, or unset both.",
}
"""What takes the place of a setting that an older version had."""

_UNSAFE_BLOCKS = "unset it: RED, UNKNOWN and ERROR always block, and no setting allows them"
_NOTHING_DELETED = "unset it: nothing that is stored is deleted"

ORIGINAL_SETTINGS = {
    "ADVISORIES_DIR": "set RMOS_DATA_DIR: a link lies beside its run, its content in attachments",
    "ALLOW_RED_OVERRIDE": _UNSAFE_BLOCKS,
    "ARTIFACT_ROOT": "set RMOS_DATA_DIR: there is one store",
    "BLOCK_ON_RED": _UNSAFE_BLOCKS,
    "DELETE_ADMIN_HEADER": _NOTHING_DELETED,
    "DELETE_ALLOW_HARD": _NOTHING_DELETED,
    "DELETE_DEFAULT_MODE": _NOTHING_DELETED,
    "DELETE_RATE_LIMIT_MAX": _NOTHING_DELETED,
    "DELETE_RATE_LIMIT_WINDOW": _NOTHING_DELETED,
    "RUNS_DIR": "set RMOS_DATA_DIR to a new folder, which has runs in it; carry the runs of this "
    "one over by rmos migrate run --from",
    "RUN_ATTACHMENTS_DIR": "set RMOS_DATA_DIR: blobs are in its folder attachments; carry those "
    "of this one over by rmos migrate run --attachments",
    "RUN_VARIANT_STATE_DIR": "unset it: reviews and variants are not kept with the runs",
    "SIGNED_URL_SECRET": "set RMOS_API_TOKENS_FILE: a download needs a token, not a signed URL",
    "TREAT_UNKNOWN_AS_RED": _UNSAFE_BLOCKS,
}
"""What takes the place of a variable of the original system, which may still run beside this one:
so it is named and not refused."""

_NAME = r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]"
_HOST = re.compile(_NAME, re.IGNORECASE)
# As a browser writes it: lower case, no path, a port only where it is not the usual one.
_ORIGIN = re.compile(
    rf"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://({_NAME})(:[0-9]{{1,5}})?"
)


def _listed(pattern: re.Pattern[str], example: str) -> BeforeValidator:
    """Return what reads a list with commas, each item of `pattern`."""

    def read(value: Any) -> tuple[str, ...]:  # noqa: ANN401
        listed = value.split(",") if isinstance(value, str) else value
        names = tuple(name.strip() for name in listed if name.strip())
        for name in names:
            if not pattern.fullmatch(name):
                raise ValueError(f"expected a list such as {example}, found {name!r} in it")
        return names

    return BeforeValidator(read)


_Names = Annotated[tuple[str, ...], NoDecode]
_Hosts = Annotated[_Names, _listed(_HOST, "runs.example,[fd00::1]")]
_Origins = Annotated[_Names, _listed(_ORIGIN, "https://cam.example,http://localhost:3000")]


class Settings(BaseSettings):
    """All knobs, each above its meaning; in the environment in upper case, after `RMOS_`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    data_dir: Path = Path("rmos-data")
    """root folder of the store"""

    store_url: str | None = Field(None, min_length=1)
    """s3, gs or az://BUCKET/PREFIX of a store of many hosts; unset for a folder"""

    index_url: SecretStr | None = Field(None, min_length=1)
    """database of its index, postgresql://USER@HOST/DATABASE; with `RMOS_STORE_URL`"""

    bootstrap_servers: str = "127.0.0.1:9092"
    """Kafka brokers, comma separated"""

    prefix: str = Field("rmos", pattern=r"^[a-z0-9][a-z0-9._-]{0,49}$")
    """first part of topic and group names"""

    replication: int = Field(1, ge=1, le=32767)
    """replication factor of new topics"""

    request_retention_ms: int = Field(KEEP_FOREVER_MS, ge=-1)
    """retention of request topics; with any limit older files cannot be restored"""

    request_partitions: int = Field(REQUEST_PARTITIONS, ge=REQUEST_PARTITIONS)
    """most partitions of a request topic that are consumed; raise it only after partitions were
    added"""

    runs_v2_enabled: bool = True
    """false, 0, no or off for v1 mode: runs are stored in the file of v1"""

    run_store_path: Path = Path("runs.json")
    """file of the v1 store; used only in v1 mode"""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """protocol between clients and broker"""

    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """SASL mechanism"""

    sasl_username: str | None = None
    """SASL user name"""

    sasl_password: SecretStr | None = None
    """SASL password"""

    sasl_password_file: Path | None = None
    """file with the SASL password, such as a secret of a container"""

    ssl_cafile: Path | None = None
    """certificate authorities that sign the broker"""

    ssl_certfile: Path | None = None
    """client certificate"""

    ssl_keyfile: Path | None = None
    """key of the client certificate"""

    ssl_keyfile_password: SecretStr | None = None
    """password of that key"""

    ssl_keyfile_password_file: Path | None = None
    """file with the password of that key"""

    instance: str | None = None
    """name of this worker for static group membership; unique in its group"""

    batch_records: int = Field(2000, ge=1, le=20000)
    """most records of one poll; a batch of the store has at most 512"""

    judge_in_child_process: bool = Field(
        True, validation_alias=AliasChoices("RMOS_JUDGE_IN_CHILD_PROCESS", "RMOS_JUDGE_IN_HELPER")
    )
    """whether large batches are judged in a child process of the worker; `RMOS_JUDGE_IN_HELPER` is
    its older name"""

    batch_wait_ms: int = Field(20, ge=1, le=5000)
    """longest wait for a poll"""

    session_timeout_ms: int = Field(10_000, ge=500)
    """silence after which the group drops a worker; Kafka accepts 6 s or more, unless its
    `group.min.session.timeout.ms` is set"""

    max_poll_interval_ms: int = Field(300_000, ge=1000)
    """longest time between two polls of a worker"""

    stop_timeout_seconds: float = Field(30.0, gt=0)
    """longest time for a service to stop; then it is cut off"""

    broker_pause_seconds: float = Field(1.0, gt=0)
    """pause after a broker fault, with jitter up to twice as long"""

    advisory_wait_seconds: float = Field(755.0, ge=0)
    """how long an advisory waits for its run, from its broker time on; then it is reported as
    RUN_NOT_FOUND"""

    ledger_key_file: Path | None = None
    """private key of the ledger; unset for a file in the user's configuration folder, one for each
    store"""

    ledger_enabled: bool = True
    """whether workers write the ledger; false is only for measurements"""

    audit_daily_at: int = Field(2, ge=-1, le=23)
    """hour of the day, UTC, when the daily full audit is due; -1 for none"""

    audit_hourly: bool = True
    """whether a quick audit is due every hour"""

    audit_trusted_dir: Path | None = Field(
        None, validation_alias=AliasChoices("RMOS_AUDIT_TRUSTED_DIR", "RMOS_AUDIT_HELD_DIR")
    )
    """folder of trusted checkpoints; audits compare the logs with them; `RMOS_AUDIT_HELD_DIR` is
    its older name"""

    audit_processes: int | None = Field(None, ge=0, le=256)
    """child processes of an audit; unset: one for a processor"""

    audit_parts: int = Field(1, ge=1, le=100)
    """parts of an audit of the whole store"""

    receipt_timeout_seconds: float = Field(30.0, gt=0)
    """longest wait for the event of a published request"""

    api_host: str = "127.0.0.1"
    """address of the HTTP API; beyond loopback it needs tokens"""

    api_port: int = Field(8080, ge=0, le=65535)
    """port of the HTTP API; 0 for any"""

    api_tokens_file: Path | None = None
    """tokens of the API: a line `name role sha256hex` for each"""

    api_allowed_hosts: _Hosts = ()
    """names that the API accepts in Host, comma separated; without tokens those of loopback are
    accepted too"""

    api_allowed_origins: _Origins = ()
    """origins of web pages that may use the API (CORS), comma separated: https://cam.example"""

    api_idle_seconds: float = Field(60.0, gt=0)
    """longest pause of a client that sends or receives a body"""

    api_requests: int = Field(500, ge=1)
    """most concurrent requests of the API"""

    api_client_requests: int = Field(200, ge=1)
    """most of these from one address; a proxy in front is one address"""

    upload_limit_bytes: int = Field(2 * 1024**3, ge=1)
    """largest blob that the API accepts"""

    metrics_host: str = "127.0.0.1"
    """address of metrics and health"""

    metrics_port: int | None = Field(None, ge=0, le=65535)
    """port of metrics and health; unset for none, 0 for any"""

    log_format: Literal["auto", "json", "console"] = "auto"
    """auto is console on a terminal, else json"""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """lowest level that is logged"""

    broker_port: int = Field(9092, ge=0, le=65535)
    """port of the local broker; 0 for any free one"""

    broker_cache_dir: Path | None = None
    """folder of the local broker's jars; unset for the user's cache"""

    @property
    def is_shared(self) -> bool:
        """Whether the store is in a bucket, shared by many hosts, and not in `data_dir`."""
        return self.store_url is not None

    @property
    def heartbeat_interval_ms(self) -> int:
        """How often a worker gives its group a sign of life: three times a session, or each 3 s."""
        return min(3000, self.session_timeout_ms // 3)

    @property
    def topics(self) -> TopicNames:
        """The full names of topics and groups."""
        return TopicNames(self.prefix)


_given: dict[str, Any] = {}


@contextmanager
def given_by_option(name: str, value: Any) -> Iterator[None]:  # noqa: ANN401
    """Let the setting `name` have a value that an option of the command line gave, for a block."""
    _given[name] = value
    try:
        yield
    finally:
        del _given[name]


def options_given() -> frozenset[str]:
    """Return the settings whose value an option gave."""
    return frozenset(_given)


def read_settings(**overrides: Any) -> Settings:  # noqa: ANN401
    """Read the environment; options come before it, and `overrides` before both.

    Raises:
        InputError: A setting has a value that it cannot have, or its name is mistyped.
    """
    refuse_mistyped()
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**{**_given, **given})
    except ValidationError as error:
        first = error.errors()[0]
        field = "_".join(str(part) for part in first["loc"])
        name = PREFIX + field.upper().removeprefix(PREFIX)
        if field in _given:
            name = f"--{field.replace('_', '-')}"
        raise InputError(f"{name} cannot be {first['input']!r}: {first['msg']}.") from error
    _refuse_mixed(settings)
    return settings


def _refuse_mixed(settings: Settings) -> None:
    """Refuse half a store on many hosts, or one that would be on a disk too."""
    if (settings.store_url is None) != (settings.index_url is None):
        urls = ("RMOS_INDEX_URL", "RMOS_STORE_URL")
        missing, given = urls if settings.is_shared else urls[::-1]
        raise InputError(f"{given} is set and {missing} is not: set both, or none of them.")
    if settings.is_shared and "data_dir" in settings.model_fields_set:
        is_option = "data_dir" in _given
        name, undo = ("--data-dir", "leave out") if is_option else ("RMOS_DATA_DIR", "unset")
        raise InputError(
            f"{name} and RMOS_STORE_URL name two stores: {undo} {name}, or unset both "
            "RMOS_STORE_URL and RMOS_INDEX_URL."
        )
    if not settings.runs_v2_enabled:
        refuse_shared(settings, "v1 mode (RMOS_RUNS_V2_ENABLED)")


def refuse_shared(settings: Settings, what: str) -> None:
    """Refuse what works on a store of one host's disk only; `what` begins the sentence.

    Raises:
        InputError: The store is in a bucket.
    """
    if settings.is_shared:
        raise InputError(
            f"{what} works on the disk of one host only, and RMOS_STORE_URL names a bucket."
        )


def unknown_variables() -> list[str]:
    """Return the variables of the environment that begin like a setting and are none, sorted."""
    # Settings are found in any case, as pydantic-settings does.
    known = known_variables()
    return sorted(
        name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known
    )


def variables_not_read() -> tuple[dict[str, str], list[str]]:
    """Return the unknown variables: what the original system reads, with what to do; the others."""
    unknown = {name: name.upper().removeprefix(PREFIX) for name in unknown_variables()}
    original = {
        name: ORIGINAL_SETTINGS[short]
        for name, short in unknown.items()
        if short in ORIGINAL_SETTINGS
    }
    return original, [name for name in unknown if name not in original]


def refuse_mistyped() -> None:
    """Refuse a variable that is nearly or was that of a setting, and would be ignored unsaid.

    Raises:
        InputError: There is one.
    """
    # Without the prefix, which all share: it would make any two of them alike.
    settings = [name.removeprefix(PREFIX) for name in sorted(known_variables())]
    for name in unknown_variables():
        asked = name.upper().removeprefix(PREFIX)
        if asked in FORMER_SETTINGS:
            raise InputError(f"{name} is no longer a setting: {FORMER_SETTINGS[asked]}")
        for meant in get_close_matches(asked, settings, n=1, cutoff=_SIMILAR):
            raise InputError(
                f"{name} is no setting: did you mean {PREFIX}{meant}? Rename or unset it."
            )


def meaning_of(name: str) -> str:
    """Return what the setting `name` means, on one line."""
    return " ".join((Settings.model_fields[name].description or "").split())


def known_variables() -> set[str]:
    """Return the names of all settings in the environment, with the older names that still work."""
    return {variable for name in Settings.model_fields for variable in variables_of(name)}


def variables_of(name: str) -> list[str]:
    """Return the variables of the setting `name`, the first one that is set counts."""
    alias = Settings.model_fields[name].validation_alias
    older = map(str, alias.choices) if isinstance(alias, AliasChoices) else ()
    return list(dict.fromkeys([PREFIX + name.upper(), *older]))
