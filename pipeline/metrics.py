"""Every metric of the pipeline, declared once: kind, labels, unit and meaning."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

RECORDS = Counter(
    "rmos_records_total",
    "Records judged, by outcome",
    ["group", "outcome"],
    registry=REGISTRY,
)
DEAD_LETTERS = Counter(
    "rmos_dead_letters_total",
    "Records that can never succeed, by error code",
    ["group", "code"],
    registry=REGISTRY,
)
CONFLICTS = Counter(
    "rmos_conflicts_total",
    "Requests with the run_id of another request; each is an alarm",
    ["group"],
    registry=REGISTRY,
)
CORRUPT_ARTIFACTS = Counter(
    "rmos_corrupt_artifacts_total",
    "Records whose file is missing or has other bytes; each is an alarm",
    ["group"],
    registry=REGISTRY,
)
RENDER_DRIFT = Counter(
    "rmos_render_drift_total",
    "Requests that this program renders to other bytes than are stored; each is a fault of it",
    ["group"],
    registry=REGISTRY,
)
BATCH_RECORDS = Histogram(
    "rmos_batch_records",
    "Records in a batch",
    ["group"],
    buckets=(1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096),
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "rmos_stage_seconds",
    "Duration of one stage of a batch: judge, store, publish",
    ["group", "stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
RECORD_AGE_SECONDS = Histogram(
    "rmos_record_age_seconds",
    "Age of a batch's oldest record, by the broker's clock, when its offset may be committed",
    ["group"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 60, 300, 3600),
    registry=REGISTRY,
)
LAG_RECORDS = Gauge(
    "rmos_consumer_lag_records",
    "Records of a partition that are not judged yet, up to the end of the log",
    ["group", "topic", "partition"],
    registry=REGISTRY,
)
LOST_OFFSETS = Gauge(
    "rmos_lost_offsets",
    "Offsets that a group needs and the log no longer has; each is an alarm",
    ["group", "topic", "partition"],
    registry=REGISTRY,
)
ASSIGNED_PARTITIONS = Gauge(
    "rmos_assigned_partitions",
    "Partitions that are assigned to this worker",
    ["group"],
    registry=REGISTRY,
)
LAST_POLL_AGE_SECONDS = Gauge(
    "rmos_last_poll_age_seconds",
    "Seconds since the last poll of the worker; it polls many times a second",
    ["group"],
    registry=REGISTRY,
)
NOT_READY_REASONS = Gauge(
    "rmos_not_ready_reasons",
    "Reasons why a consumer of this process is not ready; each is an alarm",
    ["group", "kind"],
    registry=REGISTRY,
)
FAULTS = Counter(
    "rmos_faults_total",
    "Batches put off by a fault of the infrastructure, by side: broker or store",
    ["group", "side"],
    registry=REGISTRY,
)
FREE_INODES = Gauge(
    "rmos_free_inodes",
    "Free inodes of the store's volume; 0 where it has no fixed number of them",
    registry=REGISTRY,
)
INODES = Gauge(
    "rmos_inodes",
    "Inodes of the store's volume; 0 where it has no fixed number of them",
    registry=REGISTRY,
)
HTTP_REQUESTS = Counter(
    "rmos_http_requests_total",
    "HTTP requests, by method, route and status; status 0 is a connection that was cut",
    ["method", "route", "status"],
    registry=REGISTRY,
)
HTTP_SECONDS = Histogram(
    "rmos_http_request_seconds",
    "Seconds from a request's head to the end of its answer",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    registry=REGISTRY,
)
UNREADABLE_BATCHES = Counter(
    "rmos_unreadable_batches_total",
    "Failed reads of a batch on the broker; its partition waits meanwhile",
    ["topic", "partition"],
    registry=REGISTRY,
)
AUDITS = Counter(
    "rmos_audits_total",
    "Finished audits, by mode, verdict (integrity, completeness, anchored, late) and its result",
    ["mode", "verdict", "result"],
    registry=REGISTRY,
)
AUDIT_FINDINGS = Counter(
    "rmos_audit_findings_total",
    "Findings of audits, by code and severity; each of severity error is an alarm",
    ["code", "severity"],
    registry=REGISTRY,
)
AUDIT_SECONDS = Gauge(
    "rmos_audit_seconds",
    "Duration of the last audit of this worker, by mode",
    ["mode"],
    registry=REGISTRY,
)
LAST_CLEAN_AUDIT = Gauge(
    "rmos_last_clean_audit_timestamp_seconds",
    "End of the last audit that found no error, in seconds since 1970",
    ["mode"],
    registry=REGISTRY,
)
