CREATE TABLE submissions (
    id               INTEGER PRIMARY KEY,
    hotkey           BLOB    NOT NULL CHECK (length(hotkey) = 32),
    commit_block     INTEGER NOT NULL,
    registered_at    INTEGER,
    raw              BLOB    NOT NULL,
    repo             TEXT,
    revision         TEXT,
    template         TEXT,
    competition      TEXT,
    status           TEXT    NOT NULL,
    rejection_code   TEXT,
    rejection_detail TEXT,
    weights_key      TEXT,
    tensor_digest    TEXT,
    discovered_ms    INTEGER NOT NULL,
    updated_ms       INTEGER NOT NULL,
    UNIQUE (hotkey, commit_block),
    CHECK ((rejection_code IS NULL) = (rejection_detail IS NULL)),
    CHECK ((status = 'rejected') = (rejection_code IS NOT NULL))
) STRICT;
CREATE INDEX submissions_status ON submissions (status, id);
CREATE INDEX submissions_weights_key ON submissions (weights_key, commit_block, hotkey)
    WHERE weights_key IS NOT NULL;
CREATE INDEX submissions_tensor_digest ON submissions (tensor_digest, commit_block, hotkey)
    WHERE tensor_digest IS NOT NULL;

CREATE TABLE submission_events (
    id            INTEGER PRIMARY KEY,
    submission_id INTEGER NOT NULL REFERENCES submissions (id),
    at_ms         INTEGER NOT NULL,
    status        TEXT    NOT NULL,
    note          TEXT    NOT NULL
) STRICT;
CREATE INDEX submission_events_of ON submission_events (submission_id, id);

-- One row per run of a submission through fetch, score and judge. `available_ms` is the time from
-- which the row may be leased: the end of its back-off when ready, of its lease when leased.
-- `retry` puts what was tried before behind all that was not.
CREATE TABLE jobs (
    id            INTEGER PRIMARY KEY,
    submission_id INTEGER NOT NULL REFERENCES submissions (id),
    run           INTEGER NOT NULL,
    commit_block  INTEGER NOT NULL,
    hotkey        BLOB    NOT NULL,
    stage         TEXT    NOT NULL,
    state         TEXT    NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    retry         INTEGER NOT NULL GENERATED ALWAYS AS (attempts > 0) VIRTUAL,
    available_ms  INTEGER NOT NULL,
    token         INTEGER NOT NULL DEFAULT 0,
    worker        TEXT,
    payload       TEXT    NOT NULL DEFAULT 'null',
    created_ms    INTEGER NOT NULL,
    updated_ms    INTEGER NOT NULL,
    UNIQUE (submission_id, run),
    CHECK ((state = 'leased') = (worker IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX jobs_one_open ON jobs (submission_id) WHERE state <> 'done';
CREATE INDEX jobs_order ON jobs (stage, retry, commit_block, hotkey, id)
    WHERE state IN ('ready', 'leased');
CREATE INDEX jobs_leased ON jobs (stage, available_ms) WHERE state = 'leased';

CREATE TABLE faults (
    id            INTEGER PRIMARY KEY,
    submission_id INTEGER REFERENCES submissions (id),
    party         TEXT    NOT NULL,
    code          TEXT    NOT NULL,
    retryable     INTEGER NOT NULL,
    message       TEXT    NOT NULL,
    at_ms         INTEGER NOT NULL
) STRICT;
CREATE INDEX faults_of ON faults (submission_id, id);

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
