"""The composition root: the only place that wires settings, store, broker and consumers.

`pipeline.app.http` is imported by name: a worker starts without the web framework.
"""

from pipeline.app.advise import advise_worker
from pipeline.app.audit import audit_worker
from pipeline.app.local import local_broker, prepare_local, watch
from pipeline.app.persist import legacy_persist_worker, persist_worker
from pipeline.app.process import run_service, serve_health, stop_on_signals, until_stopped
from pipeline.app.services import (
    run_advise_worker,
    run_all_workers,
    run_audit_worker,
    run_everything,
    run_persist_worker,
)
from pipeline.app.worker import Worker

__all__ = [
    "Worker",
    "advise_worker",
    "audit_worker",
    "legacy_persist_worker",
    "local_broker",
    "persist_worker",
    "prepare_local",
    "run_advise_worker",
    "run_all_workers",
    "run_audit_worker",
    "run_everything",
    "run_persist_worker",
    "run_service",
    "serve_health",
    "stop_on_signals",
    "until_stopped",
    "watch",
]
