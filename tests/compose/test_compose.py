"""All that can be read in the files of the containers; where Docker runs, it builds the image."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
import yaml

from pipeline.api.http.tokens import is_loopback
from pipeline.broker.local.loopback import free_port
from pipeline.broker.local.runtime import KAFKA_VERSION
from pipeline.settings import Settings, read_settings
from tests.docs.command_words import fault_of

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if "build" in each}

of_ours = pytest.mark.parametrize("name", OURS)


def command_lines(service: dict[str, Any]) -> list[str]:
    if "entrypoint" not in service:
        return [shlex.join(["rmos", *service["command"]])]
    (script,) = service["command"]
    return re.findall(r"rmos [a-z -]+[a-z]", script)


def test_it_starts_the_broker_the_topics_the_store_the_workers_and_the_api() -> None:
    assert SERVICES.keys() == {"kafka", "topics", "store", "persist", "advise", "audit", "api"}
    lines = {line for service in OURS.values() for line in command_lines(service)}
    assert lines == {
        "rmos topics apply",
        "rmos store init",
        "rmos store status",
        "rmos ledger init",
        "rmos worker persist --instance persist-1",
        "rmos worker advisories --instance advise-1",
        "rmos worker audit --instance audit-1",
        "rmos api",
    }


@of_ours
def test_every_command_exists(name: str) -> None:
    lines = command_lines(OURS[name])
    assert lines
    assert [fault_of(line) for line in lines] == [None] * len(lines)


def test_the_command_of_the_image_exists() -> None:
    entry = re.search(r'^ENTRYPOINT \["(.*)"\]$', DOCKERFILE, re.MULTILINE)
    command = re.search(r"^CMD \[(.*)\]$", DOCKERFILE, re.MULTILINE)
    assert entry is not None
    assert command is not None
    assert entry[1] == "rmos"
    assert fault_of("rmos " + command[1].replace('"', "").replace(",", "")) is None


def test_every_setting_exists() -> None:
    known = {f"RMOS_{name.upper()}" for name in Settings.model_fields}
    texts = [DOCKERFILE, (FOLDER / "compose.yaml").read_text(encoding="utf-8")]
    named = {name for text in texts for name in re.findall(r"RMOS_[A-Z_]*[A-Z]", text)}
    assert "RMOS_METRICS_PORT" in named
    assert named <= known


@of_ours
def test_every_setting_has_a_value_that_it_can_have(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in OURS[name]["environment"].items():
        monkeypatch.setenv(variable, str(value))
    settings = read_settings()
    assert settings.bootstrap_servers == "kafka:9092"
    assert str(settings.data_dir) in DOCKERFILE


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_refers_to_is_there(name: str) -> None:
    service = SERVICES[name]
    for volume in service["volumes"]:
        assert volume.partition(":")[0] in COMPOSE["volumes"]
    for other, how in service.get("depends_on", {}).items():
        assert other in SERVICES
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        if how["condition"] == "service_completed_successfully":
            assert SERVICES[other]["restart"] == "no"
    if "build" in service:
        context = (FOLDER / service["build"]["context"]).resolve()
        assert (context / service["build"]["dockerfile"]).is_file()


def test_what_the_image_copies_is_there() -> None:
    for sources in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists()


def test_the_broker_is_the_one_that_the_tests_run() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


@pytest.mark.parametrize("name", ["persist", "advise", "audit"])
def test_a_worker_has_health_a_volume_and_time_to_stop(name: str) -> None:
    worker = SERVICES[name]
    port = worker["environment"]["RMOS_METRICS_PORT"]
    assert f"RMOS_METRICS_PORT={port}" in DOCKERFILE
    assert "healthcheck" not in worker, "that of the image holds"
    key_folder = Path(worker["environment"]["RMOS_LEDGER_KEY_FILE"]).parent
    assert worker["volumes"] == [
        f"store:{worker['environment']['RMOS_DATA_DIR']}",
        f"keys:{key_folder}",
    ]
    assert f"-m 0700 {key_folder}" in DOCKERFILE
    assert SERVICES["store"]["volumes"] == worker["volumes"]
    assert worker["restart"] != "no"
    assert int(worker["stop_grace_period"].removesuffix("s")) > read_settings().stop_timeout_seconds


def test_the_api_has_health_a_volume_and_time_to_stop() -> None:
    api = SERVICES["api"]
    port = api["environment"]["RMOS_API_PORT"]
    assert "healthcheck" not in api, "that of the image holds"
    # Published at loopback of the host alone: TLS is the work of what stands in front.
    assert api["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert api["volumes"] == [f"store:{api['environment']['RMOS_DATA_DIR']}"]
    assert api["restart"] != "no"
    assert int(api["stop_grace_period"].removesuffix("s")) > read_settings().stop_timeout_seconds


def test_the_api_asks_for_tokens_that_are_a_secret() -> None:
    api = SERVICES["api"]
    host, file = (api["environment"][f"RMOS_API_{name}"] for name in ("HOST", "TOKENS_FILE"))
    assert not is_loopback(host)
    (secret,) = api["secrets"]
    assert file == f"/run/secrets/{secret}"
    kept = (FOLDER / COMPOSE["secrets"][secret]["file"]).resolve()
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert f"/{kept.relative_to(ROOT)}" in ignored, "it must never be committed"


class _Ready(BaseHTTPRequestHandler):
    """Answers what a service answers: 200 where it is ready, else 503."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/ready" else 404)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def service(status: int) -> Iterator[int]:
    handler = type("Handler", (_Ready,), {"status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def health(**ports: int) -> int:
    return subprocess.run(
        [sys.executable, FOLDER / "health.py"],
        env={f"RMOS_{name}_PORT": str(port) for name, port in ports.items()},
        check=False,
    ).returncode


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1), (404, 1)])
def test_the_health_check_asks_whichever_service_the_container_runs(
    status: int, exit_status: int
) -> None:
    nobody = free_port()
    with service(status) as port:
        assert health(METRICS=port, API=nobody) == exit_status
        assert health(METRICS=nobody, API=port) == exit_status
    assert health(METRICS=nobody, API=nobody) == 1


def test_the_image_runs_as_a_user_and_has_its_health_check() -> None:
    user, uid = re.search(r"^USER (\w+)$", DOCKERFILE, re.MULTILINE), "--uid 10001"
    assert user is not None
    assert user[1] != "root"
    assert f"{uid} --create-home {user[1]}" in DOCKERFILE
    copied = re.search(r"^COPY compose/health.py (\S+)$", DOCKERFILE, re.MULTILINE)
    assert copied is not None
    assert f'CMD ["python", "{copied[1]}"]' in DOCKERFILE
    kept = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    for sources in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE):
        assert {f"!{source}" for source in sources.split()} <= set(kept)


def docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """Build the image; its layers stay in Docker's cache."""
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed: the image cannot be built")
    asked = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if asked.returncode:
        pytest.skip(f"no Docker daemon answers: {asked.stderr.strip()[-200:]}")
    name = f"rmos-runs-test:{uuid4().hex}"
    docker("build", "--tag", name, "--file", "compose/Dockerfile", ".")
    yield name
    docker("image", "rm", "--force", name)


@pytest.mark.slow
def test_the_image_is_built_and_runs_as_its_user(image: str) -> None:
    assert docker("run", "--rm", image, "--version") == f"rmos {version('rmos-runs')}\n"
    assert docker("run", "--rm", "--entrypoint", "id", image, "-u") == "10001\n"
    described = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert described["User"] == "rmos"
    assert described["Healthcheck"]["Test"][0] == "CMD"


@pytest.mark.slow
@pytest.mark.parametrize(("has_file", "exit_status"), [(True, 6), (False, 2)])
def test_the_image_reads_its_secrets_from_files(
    image: str, tmp_path: Path, has_file: bool, exit_status: int
) -> None:
    if has_file:
        (tmp_path / "password").write_text("secret\n", encoding="utf-8")
    tmp_path.chmod(0o755)
    settings = (
        *("RMOS_SECURITY_PROTOCOL=SASL_PLAINTEXT", "RMOS_SASL_USERNAME=u"),
        "RMOS_SASL_PASSWORD_FILE=/run/secrets/password",
    )
    given = [word for each in settings for word in ("--env", each)]
    mounted = f"{tmp_path}:/run/secrets:ro"
    check = ["docker", "run", "--rm", "--volume", mounted, *given, image, "topics", "check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    # With the password it looks for the broker, and there is none.
    assert done.returncode == exit_status, done.stderr


def test_the_readme_says_that_they_were_not_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "They were **not run**" in readme
