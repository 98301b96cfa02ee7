"""Prometheus' own tool reads `docs/alerts.yaml`; an alert fires for its fault and no other."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.test_alerts import DOCS, RULES

PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus"
)

HEALTHY = {
    'up{job="rmos-persist"}': "1",
    'rmos_assigned_partitions{group="rmos.persist"}': "12",
    'rmos_last_clean_audit_timestamp_seconds{mode="quick"}': "0",
    'rmos_last_clean_audit_timestamp_seconds{mode="full"}': "0",
    # An audit worker counts from 0 on.
    'rmos_audit_findings_total{code="FILE_MISSING",severity="error"}': "0",
    'rmos_audit_findings_total{code="STRANGE_FILE",severity="warning"}': "0",
    'rmos_lost_offsets{group="rmos.persist",topic="t",partition="0"}': "0",
    'rmos_last_poll_age_seconds{group="rmos.persist"}': "0.1",
    'rmos_not_ready_reasons{group="rmos.persist",kind="broker"}': "0",
    'rmos_consumer_lag_records{group="rmos.persist",topic="t",partition="0"}': "10000",
    'rmos_http_requests_total{method="GET",route="/runs",status="200"}': "100",
    'rmos_records_total{group="rmos.persist",outcome="persisted"}': "100",
    "rmos_free_inodes": "10",
    "rmos_inodes": "100",
    'node_filesystem_avail_bytes{mountpoint="/srv/rmos"}': "10",
    'node_filesystem_size_bytes{mountpoint="/srv/rmos"}': "100",
    'node_filesystem_files_free{mountpoint="/srv/rmos"}': "10",
    'node_filesystem_files{mountpoint="/srv/rmos"}': "100",
}
"""What a service that works measures, all the time."""

_LETTER = 'rmos_dead_letters_total{group="rmos.persist",code="%s"}'
_ANSWER = 'rmos_http_requests_total{method="GET",route="/runs",status="%s"}'
GONE = "_x30"
"""No value in any of thirty minutes: the series is not there."""
ONE = "_x27 1x2"
"""A series that begins with its first event, after 27 minutes: a counter that was not there."""

FAULTS: dict[str, list[dict[str, str]]] = {
    "RmosArtifactCorrupt": [{'rmos_corrupt_artifacts_total{group="rmos.persist"}': ONE}],
    "RmosRenderDrift": [{'rmos_render_drift_total{group="rmos.persist"}': ONE}],
    "RmosProgramFails": [{_LETTER % "INTERNAL_ERROR": ONE}],
    "RmosAuditFinding": [
        {'rmos_audit_findings_total{code="FILE_MISSING",severity="error"}': "0x27 1x2"}
    ],
    "RmosNoCleanAudit": [
        {'rmos_last_clean_audit_timestamp_seconds{mode="quick"}': "-9001x300"},
        {'rmos_last_clean_audit_timestamp_seconds{mode="quick"}': "_x300"},
        {'rmos_last_clean_audit_timestamp_seconds{mode="full"}': "-100001x300"},
    ],
    "RmosOffsetsLost": [
        {'rmos_lost_offsets{group="rmos.persist",topic="t",partition="0"}': "1x30"}
    ],
    "RmosBatchUnreadable": [{'rmos_unreadable_batches_total{topic="t",partition="0"}': "0+1x30"}],
    "RmosServiceDown": [
        {'up{job="rmos-persist"}': "0x30"},
        {'up{job="rmos-persist"}': GONE},
    ],
    "RmosPartitionsNotHeld": [
        {'rmos_assigned_partitions{group="rmos.persist"}': "11x30"},
        {'rmos_assigned_partitions{group="rmos.persist"}': GONE},
    ],
    "RmosWorkerHangs": [{'rmos_last_poll_age_seconds{group="rmos.persist"}': "61x30"}],
    "RmosNotReady": [{'rmos_not_ready_reasons{group="rmos.persist",kind="broker"}': "1x30"}],
    "RmosBrokerAway": [{'rmos_faults_total{group="rmos.persist",side="broker"}': "0+1x30"}],
    "RmosApiFails": [{_ANSWER % "500": ONE}],
    "RmosApiUnavailable": [{_ANSWER % "503": "0+1x30"}, {_ANSWER % "507": "0+1x30"}],
    "RmosConflict": [{'rmos_conflicts_total{group="rmos.persist"}': ONE}],
    "RmosAuditWarning": [
        {'rmos_audit_findings_total{code="STRANGE_FILE",severity="warning"}': "0x27 1x2"}
    ],
    "RmosDeadLetters": [{_LETTER % "INVALID_JSON": ONE}],
    "RmosAdvisoryWithoutRun": [{_LETTER % "RUN_NOT_FOUND": ONE}],
    "RmosLag": [
        {'rmos_consumer_lag_records{group="rmos.persist",topic="t",partition="0"}': "10001x30"}
    ],
    "RmosInodesEnd": [{"rmos_free_inodes": "9x30"}],
    "RmosDiskFillsUp": [
        {'node_filesystem_avail_bytes{mountpoint="/srv/rmos"}': "9x30"},
        {'node_filesystem_files_free{mountpoint="/srv/rmos"}': "9x30"},
    ],
}
"""For each alert the series, each alone, of which one has to make it fire."""

ALSO = {
    "RmosProgramFails": {"RmosDeadLetters"},
    "RmosAdvisoryWithoutRun": {"RmosDeadLetters"},
}
"""Alerts that fire with another, as they look at more."""


def test_prometheus_takes_the_rules() -> None:
    assert _promtool("check", "rules", str(DOCS / "alerts.yaml")).endswith("21 rules found\n\n")


def test_every_alert_fires_for_its_fault_and_a_healthy_service_for_none(tmp_path: Path) -> None:
    assert list(FAULTS) == [rule["alert"] for rule in RULES]
    # One that runs for long, and one that has just started: its series are new.
    cases = [_case(set(), {}, 30), _case(set(), {}, 3)]
    for alert, faults in FAULTS.items():
        minutes = 300 if alert == "RmosNoCleanAudit" else 30
        cases += [_case({alert} | ALSO.get(alert, set()), fault, minutes) for fault in faults]
    document = {"rule_files": [str(DOCS / "alerts.yaml")], "tests": cases}
    path = tmp_path / "alerts_fire.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    assert "SUCCESS" in _promtool("test", "rules", str(path))


def _case(alerts: set[str], fault: dict[str, str], minutes: int) -> dict[str, Any]:
    """Return a test of promtool: `alerts` alone fire once a fault has lasted so many minutes."""
    healthy = {series: f"{value}x{minutes}" for series, value in HEALTHY.items()}
    return {
        "name": f"{', '.join(sorted(alerts)) or 'healthy'}: {fault}",
        "interval": "1m",
        "input_series": [
            {"series": series, "values": values} for series, values in (healthy | fault).items()
        ],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minutes}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)
                ],
            }
        ],
    }


def _promtool(*words: str) -> str:
    done = subprocess.run([str(PROMTOOL), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
