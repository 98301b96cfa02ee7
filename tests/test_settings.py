"""Names in the environment: a typing error does not look like a setting that is used."""

import re

import pytest

from pipeline.errors import InputError
from pipeline.settings import (
    ORIGINAL_SETTINGS,
    PREFIX,
    Settings,
    known_variables,
    read_settings,
    unknown_variables,
    variables_not_read,
)

# What the original system reads, so that a neighbour program may have it in our environment.
NEIGHBOURS = (
    "RMOS_ADVISORIES_DIR",
    "RMOS_ALLOW_RED_OVERRIDE",
    "RMOS_ARTIFACT_ROOT",
    "RMOS_BLOCK_ON_RED",
    "RMOS_DELETE_ADMIN_HEADER",
    "RMOS_DELETE_ALLOW_HARD",
    "RMOS_DELETE_DEFAULT_MODE",
    "RMOS_DELETE_RATE_LIMIT_MAX",
    "RMOS_DELETE_RATE_LIMIT_WINDOW",
    "RMOS_RUNS_DIR",
    "RMOS_RUNS_V2_EXPLAINED",
    "RMOS_RUN_ATTACHMENTS_DIR",
    "RMOS_RUN_VARIANT_STATE_DIR",
    "RMOS_SIGNED_URL_SECRET",
    "RMOS_TREAT_UNKNOWN_AS_RED",
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RMOS_DATADIR", "RMOS_DATA_DIR"),
        ("RMOS_BOOTSTRAP_SERVER", "RMOS_BOOTSTRAP_SERVERS"),
        ("RMOS_KAFKA_BOOTSTRAP_SERVERS", "RMOS_BOOTSTRAP_SERVERS"),
        ("RMOS_API_TOKEN_FILE", "RMOS_API_TOKENS_FILE"),
        ("RMOS_SASL_USER", "RMOS_SASL_USERNAME"),
        ("RMOS_RUNS_V2_ENABLE", "RMOS_RUNS_V2_ENABLED"),
        ("rmos_prefx", "RMOS_PREFIX"),
    ],
)
def test_a_mistyped_setting_is_refused_and_the_right_name_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(InputError, match=rf"^{name} is no setting: did you mean {meant}\?"):
        read_settings()


def test_variables_of_a_neighbour_are_named_and_not_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in NEIGHBOURS:
        monkeypatch.setenv(name, "1")
    read_settings()
    assert unknown_variables() == sorted(NEIGHBOURS)


def test_each_variable_of_the_original_has_what_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One of these was never read: it is the name of its document.
    read = {name for name in NEIGHBOURS if not name.endswith("_EXPLAINED")}
    assert {PREFIX + name for name in ORIGINAL_SETTINGS} == read
    for name in (*NEIGHBOURS, "rmos_runs_dir"):
        monkeypatch.setenv(name, "1")
    original, others = variables_not_read()
    assert (original.keys(), set(others)) == (read | {"rmos_runs_dir"}, set(NEIGHBOURS) - read)
    for instead in ORIGINAL_SETTINGS.values():
        named = set(re.findall(r"RMOS_[A-Z_]+", instead))
        assert named <= known_variables()
        assert named or instead.startswith("unset it")


def test_every_setting_is_known_in_upper_and_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"rmos_{name}", "1")
        monkeypatch.setenv(f"RMOS_{name.upper()}", "1")
    assert unknown_variables() == []


@pytest.mark.parametrize(("session_ms", "heartbeat_ms"), [(500, 166), (6000, 2000), (10_000, 3000)])
def test_a_worker_gives_three_signs_of_life_in_a_session_at_least(
    session_ms: int, heartbeat_ms: int
) -> None:
    assert Settings(session_timeout_ms=session_ms).heartbeat_interval_ms == heartbeat_ms


@pytest.mark.parametrize(
    ("older", "newer", "field"),
    [
        ("RMOS_AUDIT_HELD_DIR", "RMOS_AUDIT_TRUSTED_DIR", "audit_trusted_dir"),
        ("RMOS_JUDGE_IN_HELPER", "RMOS_JUDGE_IN_CHILD_PROCESS", "judge_in_child_process"),
    ],
)
def test_an_older_name_of_a_setting_still_works(
    monkeypatch: pytest.MonkeyPatch, older: str, newer: str, field: str
) -> None:
    monkeypatch.setenv(older, "0")
    assert unknown_variables() == []
    assert str(getattr(read_settings(), field)) in {"0", "False"}
    monkeypatch.setenv(newer, "1")
    assert str(getattr(read_settings(), field)) in {"1", "True"}


def test_a_setting_of_an_older_version_names_the_one_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RMOS_ADVISORY_RETRY_SECONDS", "[5.0, 30.0, 120.0, 600.0]")
    with pytest.raises(InputError, match=r"no longer a setting.*RMOS_ADVISORY_WAIT_SECONDS"):
        read_settings()
