"""The manifests for Kubernetes, compared with its schemas and with the program. None was run."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("kubernetes_validate", reason="the extra test is not installed")

import kubernetes_validate

from pipeline.api.http.tokens import OPEN_PATHS
from pipeline.cli.one_host import WORKS_IN_A_BUCKET
from pipeline.settings import known_variables, read_settings
from tests.docs.command_words import fault_of

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "examples" / "kubernetes"
DOCKERFILE = (ROOT / "compose" / "Dockerfile").read_text(encoding="utf-8")
OBJECTS: list[dict[str, Any]] = [
    each
    for path in sorted(FOLDER.glob("*.yaml"))
    for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
BY_NAME = {(each["kind"], each["metadata"]["name"]): each for each in OBJECTS}
WORKLOADS = {
    name: each for (_, name), each in BY_NAME.items() if "template" in each.get("spec", {})
}
SETTINGS: dict[str, str] = BY_NAME["ConfigMap", "rmos-settings"]["data"]
OF_OTHERS = {"AWS_REGION", "PGPASSWORD", "XDG_STATE_HOME"}
"""Variables that are read by object_store, by libpq, and where an audit keeps its journal."""

of_workloads = pytest.mark.parametrize("name", WORKLOADS)


def pod_of(name: str) -> dict[str, Any]:
    pod: dict[str, Any] = WORKLOADS[name]["spec"]["template"]["spec"]
    return pod


def containers_of(name: str) -> list[dict[str, Any]]:
    pod = pod_of(name)
    return [*pod.get("initContainers", []), *pod["containers"]]


def ours(name: str) -> Iterator[dict[str, Any]]:
    """Yield the containers that run a command of ours."""
    yield from (each for each in containers_of(name) if "args" in each)


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    """Return the settings of a container; a name of a pod stands for that which it gets."""
    assert {"configMapRef": {"name": "rmos-settings"}} in container["envFrom"]
    own = {each["name"]: each.get("value", "rmos-0") for each in container.get("env", [])}
    return {**SETTINGS, **own}


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("one", BY_NAME, ids="-".join)
def test_an_object_has_the_form_of_its_kind(one: tuple[str, str], version: str) -> None:
    kubernetes_validate.validate(BY_NAME[one], version, strict=True)


def test_a_field_that_kubernetes_does_not_have_is_found() -> None:
    wrong = {**BY_NAME["ConfigMap", "rmos-settings"], "dta": {}}
    with pytest.raises(kubernetes_validate.ValidationError, match="dta"):
        kubernetes_validate.validate(wrong, "1.37", strict=True)


def test_every_object_is_named_once_and_says_that_it_was_not_run() -> None:
    assert len(BY_NAME) == len(OBJECTS)
    assert "NOT run on a cluster" in (FOLDER / "settings.yaml").read_text(encoding="utf-8")
    named = (FOLDER / "settings.yaml").read_text(encoding="utf-8")
    assert all(path.name in named for path in FOLDER.glob("*.yaml"))


@of_workloads
def test_every_setting_exists_and_has_a_value_that_it_can_have(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for container in ours(name):
        with monkeypatch.context() as patch:
            environment = environment_of(container)
            assert environment.keys() <= known_variables() | OF_OTHERS
            for variable, value in environment.items():
                patch.setenv(variable, value)
            patch.setenv("RMOS_SASL_PASSWORD_FILE", str(FOLDER / "settings.yaml"))
            settings = read_settings()
            assert settings.is_shared
            grace = pod_of(name).get("terminationGracePeriodSeconds", 30)
            assert grace > settings.stop_timeout_seconds or "Job" in WORKLOADS[name]["kind"]


@of_workloads
def test_every_command_exists_and_works_on_a_shared_store(name: str) -> None:
    for container in ours(name):
        words = container["args"]
        assert fault_of(shlex.join(["rmos", *words])) is None
        assert " ".join(words[:2]) in WORKS_IN_A_BUCKET


def test_what_is_run_is_what_a_store_of_many_hosts_needs() -> None:
    assert {" ".join(each["args"][:2]) for name in WORKLOADS for each in ours(name)} == {
        *("topics apply", "store init", "topics check", "store upgrade"),
        *("worker persist", "worker advisories", "worker audit", "api"),
    }


@of_workloads
def test_a_container_has_no_rights_that_it_does_not_need(name: str) -> None:
    pod = pod_of(name)
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert f"--uid {security['runAsUser']} " in DOCKERFILE
    assert pod["automountServiceAccountToken"] is False
    assert ("ServiceAccount", pod["serviceAccountName"]) in BY_NAME
    for container in containers_of(name):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["image"].startswith("registry.example/rmos-runs:")


@of_workloads
def test_every_file_that_is_named_is_mounted(name: str) -> None:
    volumes = {each["name"]: each for each in pod_of(name)["volumes"]}
    for container in ours(name):
        mounts = {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}
        assert "/tmp" in mounts, "what may be written, as the root file system may not"
        for setting, value in environment_of(container).items():
            if not setting.endswith(("_FILE", "_CAFILE")):
                continue
            folder, _, file = value.rpartition("/")
            if setting == "RMOS_LEDGER_KEY_FILE":
                is_service = container["args"][0] in {"worker", "api"}
                assert (folder in mounts) is is_service, "who signs or proves has the key"
                continue
            secret = mounts[folder]["secret"]["secretName"]
            assert file in BY_NAME["Secret", secret]["stringData"]


@pytest.mark.parametrize("name", ["rmos-persist", "rmos-advise"])
def test_a_worker_gets_a_copy_of_the_key_that_is_its_own(name: str) -> None:
    """Of a volume with a secret a group may read each file, which is refused as a key."""
    (copying,) = pod_of(name)["initContainers"]
    key = SETTINGS["RMOS_LEDGER_KEY_FILE"]
    folder, _, file = key.rpartition("/")
    program, *options, private, public = copying["command"]
    assert [program, *options] == ["install", "-m", "0400", "-t", folder]
    assert private.rpartition("/")[2] == file
    assert public == f"{private}.vkey"
    sources = {each["mountPath"]: each["name"] for each in copying["volumeMounts"]}
    volumes = {each["name"]: each for each in pod_of(name)["volumes"]}
    assert volumes[sources[folder]]["emptyDir"]["medium"] == "Memory"
    assert "secret" in volumes[sources[private.rpartition("/")[0]]]


@pytest.mark.parametrize("name", ["rmos-audit", "rmos-api"])
def test_who_signs_nothing_gets_the_public_part_of_the_key_alone(name: str) -> None:
    volumes = {each["name"]: each for each in pod_of(name)["volumes"]}
    assert volumes["key"]["configMap"]["name"] == "rmos-ledger-public"
    public = SETTINGS["RMOS_LEDGER_KEY_FILE"].rpartition("/")[2] + ".vkey"
    notes = (FOLDER / "settings.yaml").read_text(encoding="utf-8")
    assert f"create configmap rmos-ledger-public --from-file={public}\n" in notes
    assert "rmos-ledger-key" not in str(pod_of(name))
    assert "initContainers" not in pod_of(name)


@pytest.mark.parametrize("name", ["rmos-persist", "rmos-advise", "rmos-audit", "rmos-api"])
def test_a_service_is_probed_found_and_not_drained_all_at_once(name: str) -> None:
    (container,) = pod_of(name)["containers"]
    environment = environment_of(container)
    (port,) = container["ports"]
    setting = "RMOS_API_PORT" if name == "rmos-api" else "RMOS_METRICS_PORT"
    assert str(port["containerPort"]) == environment[setting]
    probes = {each: container[each]["httpGet"] for each in container if each.endswith("Probe")}
    assert {each["path"] for each in probes.values()} == OPEN_PATHS
    assert probes["readinessProbe"]["path"] == "/health/ready"
    assert probes["livenessProbe"]["path"] == "/health/live"
    for probe in probes.values():
        assert probe["port"] == port["name"]
        if allowed := environment.get("RMOS_API_ALLOWED_HOSTS"):
            assert probe["httpHeaders"] == [{"name": "Host", "value": allowed}]
    labels = WORKLOADS[name]["spec"]["template"]["metadata"]["labels"]
    selector = WORKLOADS[name]["spec"]["selector"]
    assert selector["matchLabels"].items() <= labels.items()
    assert BY_NAME["PodDisruptionBudget", name]["spec"]["selector"] == selector
    assert BY_NAME["Service", name]["spec"]["selector"] == selector["matchLabels"]
    for each in ("rmos", "rmos-api") if name == "rmos-api" else ("rmos",):
        policy = BY_NAME["NetworkPolicy", each]["spec"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_a_pod_has_its_name_as_instance_and_the_role_of_the_buckets_policy() -> None:
    policy = (FOLDER.parent / "bucket" / "policy.json").read_text(encoding="utf-8")
    for name in ("rmos-persist", "rmos-advise", "rmos-audit"):
        (worker,) = pod_of(name)["containers"]
        instance = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        assert {"name": "RMOS_INSTANCE", **instance} in worker["env"]
        assert WORKLOADS[name]["kind"] == "StatefulSet", "a name that comes again"
    for account in ("rmos-worker", "rmos-api"):
        (role,) = BY_NAME["ServiceAccount", account]["metadata"]["annotations"].values()
        assert role in policy


def test_the_image_has_what_a_shared_store_needs() -> None:
    assert "'.[otel,scale]'" in DOCKERFILE
    # Beside RMOS_STORE_URL it would be refused.
    assert "RMOS_DATA_DIR" not in DOCKERFILE
