"""Settings as options: on each command that reads them, before the variable, and shown as such."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.commands import COMMANDS, imported
from pipeline.settings import PREFIX, Settings, options_given, read_settings
from tests.cli.command_line import CommandLine

ALL = {"--data-dir", "--bootstrap-servers", "--prefix"}
ELSEWHERE = "127.0.0.1:2"
"""Another address where no broker answers."""


def leaves(words: tuple[str, ...], command: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    if not below:
        yield " ".join(words), command
    for word, each in below.items():
        yield from leaves((*words, word), each)


def options_of(command: Any) -> set[str]:
    return ALL & {name for each in command.params for name in each.opts}


def test_each_command_that_reads_settings_has_them_as_options() -> None:
    found = {
        words: options_of(command)
        for name in COMMANDS
        for words, command in leaves((name,), imported(name))
    }
    assert len(found) > 50
    # The demo has a folder and a broker of its own, and single files have no settings.
    assert {words for words, options in found.items() if not options} == {"demo", "audit file"}
    assert {words for words, options in found.items() if "--data-dir" not in options} == {
        *("demo", "audit file")
    }
    of_a_broker = {"worker persist", "topics check", "replay verify", "publish run", "ledger init"}
    assert {words: found[words] for words in of_a_broker} == dict.fromkeys(of_a_broker, ALL)
    assert found["runs list"] == found["store status"] == found["archive create"] == {"--data-dir"}


def test_the_folder_of_an_option_wins_over_the_variable(
    rmos_with_runs: CommandLine, tmp_path: Path
) -> None:
    store = rmos_with_runs.data_dir
    rmos_with_runs.set("RMOS_DATA_DIR", str(tmp_path / "nothing"))
    assert rmos_with_runs("runs", "list").status == 6
    for words in ("runs list", "store status", "index check"):
        assert rmos_with_runs(*words.split(), "--data-dir", str(store)).status == 0
    # It counted for those commands alone.
    assert options_given() == frozenset()
    assert rmos_with_runs("runs", "list").status == 6


@pytest.mark.parametrize(
    "words", ["topics check", "worker audit", "replay", "replay plan", "peek", "offsets show"]
)
def test_the_broker_of_an_option_is_the_one_that_is_asked(
    rmos_with_runs: CommandLine, words: str
) -> None:
    done = rmos_with_runs(*words.split(), "--bootstrap-servers", ELSEWHERE)
    assert done.status == 6
    assert ELSEWHERE in done.err


def test_a_value_that_cannot_be_is_named_by_its_option(rmos: CommandLine) -> None:
    done = rmos("topics", "check", "--prefix", "No Good")
    assert done.status == 2
    assert done.sentence.startswith("--prefix cannot be 'No Good': ")


def test_every_setting_is_shown_with_its_source(rmos: CommandLine) -> None:
    rmos.set("rmos_api_port", "9")
    rmos.set("RMOS_JUDGE_IN_HELPER", "false")
    rmos.set("RMOS_API_ALLOWED_HOSTS", "runs.example,other.example")
    done = rmos("settings", "--prefix", "shop", "--json")
    shown = {each["setting"]: each for each in done.document["settings"]}
    assert list(shown) == [PREFIX + name.upper() for name in Settings.model_fields]
    assert all(each["meaning"] for each in shown.values())
    found = {name: (each["value"], each["source"]) for name, each in shown.items()}
    assert found["RMOS_PREFIX"] == ("shop", "option")
    assert found["RMOS_DATA_DIR"] == (str(rmos.data_dir), "environment")
    assert found["RMOS_API_PORT"] == (9, "environment")
    assert found["RMOS_JUDGE_IN_CHILD_PROCESS"] == (False, "environment")
    assert found["RMOS_BATCH_RECORDS"] == (2000, "default")
    lines = rmos("settings").text.splitlines()
    assert lines[0].split("\t") == ["setting", "value", "source", "meaning"]
    assert len(lines) == len(shown) + 1
    assert any(line.split("\t")[1] == "runs.example,other.example" for line in lines)


def test_no_secret_is_shown(rmos: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hush-of-file\n")
    rmos.set("RMOS_SSL_KEYFILE_PASSWORD", "hush-of-variable")
    rmos.set("RMOS_SASL_PASSWORD_FILE", str(file))
    assert read_settings().ssl_keyfile_password is not None
    for words in (["settings"], ["settings", "--json"]):
        assert "hush" not in rmos(*words).text
    shown = {
        each["setting"]: each for each in json.loads(rmos("settings", "--json").text)["settings"]
    }
    assert shown["RMOS_SASL_PASSWORD"]["source"] == "file"
    assert shown["RMOS_SASL_PASSWORD"]["value"].strip("*") == ""
    file.unlink()
    assert "RMOS_SASL_PASSWORD\tcannot be read\tfile\t" in rmos("settings").text
    assert shown["RMOS_SSL_KEYFILE_PASSWORD"]["value"].strip("*") == ""
    assert shown["RMOS_SSL_KEYFILE_PASSWORD"]["value"]
