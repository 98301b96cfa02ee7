-- The tables of the index, as pipeline/storage/index/tables.py declares them. Text sorts by its
-- bytes, as everywhere in a store.

CREATE TABLE accepted_losses (
    epoch integer NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (epoch, topic, partition)
);

CREATE TABLE advisories (
    run_id text COLLATE "C" NOT NULL,
    advisory_id text COLLATE "C" NOT NULL,
    created_at_utc text COLLATE "C" NOT NULL,
    created_at_us bigint NOT NULL,
    kind text COLLATE "C" NOT NULL,
    engine_id text COLLATE "C",
    engine_version text COLLATE "C",
    request_id text COLLATE "C",
    title text COLLATE "C",
    content_sha256 text COLLATE "C",
    mime text COLLATE "C",
    size_bytes bigint,
    link_sha256 text COLLATE "C" NOT NULL,
    link_path text COLLATE "C",
    source_epoch integer,
    source_topic text COLLATE "C",
    source_partition integer,
    source_offset bigint,
    PRIMARY KEY (run_id, advisory_id)
);
CREATE INDEX advisories_by_content ON advisories (content_sha256);
CREATE INDEX advisories_by_id ON advisories (advisory_id);
CREATE INDEX advisories_of_run ON advisories (run_id, created_at_us, advisory_id);
CREATE INDEX advisories_unlinked
    ON advisories (source_epoch, source_topic, source_partition, source_offset)
    WHERE link_path IS NULL;

CREATE TABLE claims_in_hand (
    epoch integer NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    PRIMARY KEY (epoch, topic, partition, "offset")
);

CREATE TABLE flood_windows (
    group_id text COLLATE "C" NOT NULL,
    verdicts text COLLATE "C" NOT NULL,
    PRIMARY KEY (group_id)
);

CREATE TABLE positions (
    epoch integer NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (epoch, topic, partition)
);

CREATE TABLE reported_claims (
    epoch integer NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (epoch, topic, partition)
);

CREATE TABLE runs (
    run_id text COLLATE "C" NOT NULL,
    created_at_utc text COLLATE "C" NOT NULL,
    created_at_us bigint NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    mode text COLLATE "C" NOT NULL,
    tool_id text COLLATE "C" NOT NULL,
    material_id text COLLATE "C",
    machine_id text COLLATE "C",
    workflow_session_id text COLLATE "C",
    risk_level text COLLATE "C" NOT NULL,
    score double precision,
    block_reason text COLLATE "C",
    feasibility_sha256 text COLLATE "C" NOT NULL,
    toolpaths_sha256 text COLLATE "C",
    gcode_sha256 text COLLATE "C",
    opplan_sha256 text COLLATE "C",
    gcode_known_by text COLLATE "C",
    legacy boolean NOT NULL,
    artifact_sha256 text COLLATE "C" NOT NULL,
    artifact_path text COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL,
    request_sha256 text COLLATE "C" NOT NULL,
    source_epoch integer,
    source_topic text COLLATE "C",
    source_partition integer,
    source_offset bigint,
    PRIMARY KEY (run_id)
);
CREATE INDEX runs_by_arrival_and_artifact_sha256
    ON runs (coalesce(source_offset >> 10, -1), substr(artifact_sha256, 1, 12));
CREATE INDEX runs_by_arrival_and_feasibility_sha256
    ON runs (coalesce(source_offset >> 10, -1), substr(feasibility_sha256, 1, 12));
CREATE INDEX runs_by_arrival_and_gcode_sha256
    ON runs (coalesce(source_offset >> 10, -1), substr(gcode_sha256, 1, 12), created_at_us, run_id);
CREATE INDEX runs_by_event_type ON runs (event_type, created_at_us, run_id);
CREATE INDEX runs_by_machine_id ON runs (machine_id, created_at_us, run_id);
CREATE INDEX runs_by_material_id ON runs (material_id, created_at_us, run_id);
CREATE INDEX runs_by_mode ON runs (mode, created_at_us, run_id);
CREATE INDEX runs_by_risk_level ON runs (risk_level, created_at_us, run_id);
CREATE INDEX runs_by_status ON runs (status, created_at_us, run_id);
CREATE INDEX runs_by_tool_id ON runs (tool_id, created_at_us, run_id);
CREATE INDEX runs_by_workflow_session_id ON runs (workflow_session_id, created_at_us, run_id);
CREATE INDEX runs_newest_first ON runs (created_at_us, run_id);
CREATE INDEX runs_unexplained ON runs (source_offset, run_id) WHERE source_offset IS NULL;

CREATE TABLE topic_ids (
    epoch integer NOT NULL,
    topic text COLLATE "C" NOT NULL,
    topic_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (epoch, topic)
);

CREATE TABLE attachments (
    run_id text COLLATE "C" NOT NULL,
    position integer NOT NULL,
    sha256 text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    PRIMARY KEY (run_id, position),
    FOREIGN KEY(run_id) REFERENCES runs (run_id)
);
CREATE INDEX attachments_by_blob ON attachments (sha256);

CREATE TABLE withheld_blobs (
    sha256 text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (sha256, run_id),
    FOREIGN KEY(run_id) REFERENCES runs (run_id)
);

CREATE TABLE withheld_payloads (
    sha256 text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (sha256, run_id),
    FOREIGN KEY(run_id) REFERENCES runs (run_id)
);

CREATE TABLE store (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    format text COLLATE "C" NOT NULL,
    store_id text COLLATE "C" NOT NULL,
    cluster_id text COLLATE "C" NOT NULL,
    prefix text COLLATE "C" NOT NULL,
    epoch integer NOT NULL,
    key text COLLATE "C"
);
