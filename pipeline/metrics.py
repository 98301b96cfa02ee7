"""Every metric of the pipeline, declared once: kind, labels, unit and meaning."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()
_counter = partial(Counter, registry=REGISTRY)
_gauge = partial(Gauge, registry=REGISTRY)
_histogram = partial(Histogram, registry=REGISTRY)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

RECORDS = _counter("rmos_records_total", "Records judged, by outcome", ["group", "outcome"])
DEAD_LETTERS = _counter(
    "rmos_dead_letters_total", "Records that can never succeed, by error code", ["group", "code"]
)
CONFLICTS = _counter(
    "rmos_conflicts_total",
    "Requests with the run_id of another request; each is an alarm",
    ["group"],
)
CORRUPT_ARTIFACTS = _counter(
    "rmos_corrupt_artifacts_total",
    "Records whose file is missing or has other bytes; each is an alarm",
    ["group"],
)
RENDER_DRIFT = _counter(
    "rmos_render_drift_total",
    "Requests that this program renders to other bytes than are stored; each is a fault of it",
    ["group"],
)
BATCH_RECORDS = _histogram(
    "rmos_batch_records",
    "Records in a poll",
    ["group"],
    buckets=(1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096),
)
STAGE_SECONDS = _histogram(
    "rmos_stage_seconds",
    "Duration of one stage of a chunk: judge, write, store, publish",
    ["group", "stage"],
    buckets=_SECONDS,
)
RECORD_AGE_SECONDS = _histogram(
    "rmos_record_age_seconds",
    "Age of a batch's oldest record, by the broker's clock, when its offset may be committed",
    ["group"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 3600),
)
LAG_RECORDS = _gauge(
    "rmos_consumer_lag_records",
    "Records of a partition that are not judged yet, up to the end of the log",
    ["group", "topic", "partition"],
)
LOST_OFFSETS = _gauge(
    "rmos_lost_offsets",
    "Offsets that a group needs and the log no longer has; each is an alarm",
    ["group", "topic", "partition"],
)
ASSIGNED_PARTITIONS = _gauge(
    "rmos_assigned_partitions", "Partitions that are assigned to this worker", ["group"]
)
LAST_POLL_AGE_SECONDS = _gauge(
    "rmos_last_poll_age_seconds",
    "Seconds since the last poll of the worker; it polls many times a second",
    ["group"],
)
NOT_READY_REASONS = _gauge(
    "rmos_not_ready_reasons",
    "Reasons why a consumer of this process is not ready; each is an alarm",
    ["group", "kind"],
)
FAULTS = _counter(
    "rmos_faults_total",
    "Batches put off by a fault of the infrastructure, by side: broker or store",
    ["group", "side"],
)
FREE_INODES = _gauge(
    "rmos_free_inodes", "Free inodes of the store's volume; 0 where it has no fixed number of them"
)
INODES = _gauge(
    "rmos_inodes", "Inodes of the store's volume; 0 where it has no fixed number of them"
)
HTTP_REQUESTS = _counter(
    "rmos_http_requests_total",
    "HTTP requests, by method, route and status; status 0 is a connection that was cut",
    ["method", "route", "status"],
)
HTTP_SECONDS = _histogram(
    "rmos_http_request_seconds",
    "Seconds from a request's head to the end of its answer",
    ["method", "route"],
    buckets=_SECONDS,
)
UNREADABLE_BATCHES = _counter(
    "rmos_unreadable_batches_total",
    "Failed reads of a batch on the broker; its partition waits meanwhile",
    ["topic", "partition"],
)
AUDITS = _counter(
    "rmos_audits_total",
    "Finished audits, by mode, verdict (integrity, completeness, anchored, late) and its result",
    ["mode", "verdict", "result"],
)
AUDIT_FINDINGS = _counter(
    "rmos_audit_findings_total",
    "Findings of audits, by code and severity; each of severity error is an alarm",
    ["code", "severity"],
)
AUDIT_SECONDS = _gauge(
    "rmos_audit_seconds", "Duration of the last audit of this worker, by mode", ["mode"]
)
LAST_CLEAN_AUDIT = _gauge(
    "rmos_last_clean_audit_timestamp_seconds",
    "End of the last audit that found no error, in seconds since 1970",
    ["mode"],
)
