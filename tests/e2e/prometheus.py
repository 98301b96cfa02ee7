"""A real Prometheus for one test: it scrapes what it is given, and is asked over HTTP."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from pipeline.broker.local.loopback import free_port
from tests.e2e.kafka_reading import wait_until

PROGRAMS = ("prometheus", "prometheus-node-exporter")
MISSING = [each for each in PROGRAMS if shutil.which(each) is None]
WHY_NOT = f"not installed: {', '.join(MISSING)}; they are packages of Debian"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs.

    Attributes:
        http: Asks it.
    """

    http: httpx.AsyncClient

    async def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer."""
        answer = await self.http.get(f"/api/v1/{path}", params=parameters)
        document = answer.json()
        assert document["status"] == "success", (parameters, document)
        return document["data"]

    async def values(self, expression: str) -> list[float]:
        """Return what an expression answers now, a value for each series."""
        data = await self.ask("query", query=expression)
        assert data["resultType"] == "vector", expression
        return [float(each["value"][1]) for each in data["result"]]

    async def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = (await self.ask("alerts"))["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}


@asynccontextmanager
async def prometheus(
    folder: Path, targets: Mapping[str, str], rules: str
) -> AsyncIterator[Prometheus]:
    """Run one that scrapes `targets`, addresses by job, every second; return when all are up.

    Args:
        folder: For its files; made.
        targets: Addresses by the name of the job.
        rules: The text of its file of rules.
    """
    address = f"127.0.0.1:{free_port()}"
    _configure(folder, targets, rules)
    command = (
        *("prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"),
        *(f"--web.listen-address={address}", "--enable-feature=exemplar-storage"),
    )
    with _running(command, folder / "prometheus.log"):
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=60) as http:
            asked = Prometheus(http)

            async def is_up() -> bool:
                try:
                    return await asked.values("sum(up)") == [len(targets)]
                except (httpx.TransportError, ValueError):
                    return False

            await wait_until(is_up, "Prometheus scrapes all")
            yield asked


def _configure(folder: Path, targets: Mapping[str, str], rules: str) -> None:
    folder.mkdir()
    (folder / "alerts.yaml").write_text(rules, encoding="utf-8")
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [address]}]}
            for job, address in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")


@contextmanager
def node_exporter(folder: Path) -> Iterator[str]:
    """Run Prometheus' exporter of machines, of file systems alone; yield its address."""
    address = f"127.0.0.1:{free_port()}"
    command = (
        *("prometheus-node-exporter", f"--web.listen-address={address}"),
        *("--collector.disable-defaults", "--collector.filesystem"),
        # Those of containers and of memory too, where the tests' folders may be.
        "--collector.filesystem.fs-types-exclude=^$",
        "--collector.filesystem.mount-points-exclude=^$",
    )
    with _running(command, folder / "node_exporter.log"):
        yield address


@contextmanager
def _running(command: tuple[str, ...], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=log.parent, stdout=output, stderr=output)
    try:
        yield
        assert process.poll() is None, log.read_text(encoding="utf-8")
    finally:
        process.terminate()
        process.wait(30)
