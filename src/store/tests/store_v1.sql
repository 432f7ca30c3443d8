-- A node's store as version 1 of the schema left it: queued, leased, rejected and parked work.
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
PRAGMA journal_mode = WAL;
INSERT INTO submissions (id, hotkey, commit_block, registered_at, raw, repo, template, competition, status, weights_key, discovered_ms, updated_ms)
    VALUES (1, zeroblob(32), 40, 2, CAST('2:a/one:x:chatml:c1' AS BLOB), 'a/one', 'chatml', 'c1', 'queued', 'wk1', 1000, 1000);
INSERT INTO submissions (id, hotkey, commit_block, raw, status, rejection_code, rejection_detail, discovered_ms, updated_ms)
    VALUES (2, zeroblob(32), 41, x'FFFE', 'rejected', 'COMMITMENT_UNREADABLE', 'not UTF-8', 1001, 1001);
INSERT INTO submissions (id, hotkey, commit_block, raw, repo, revision, status, tensor_digest, discovered_ms, updated_ms)
    VALUES (3, CAST(x'01' || zeroblob(31) AS BLOB), 39, CAST('2:a/three:x:chatml:c1' AS BLOB), 'a/three', '0123456789012345678901234567890123456789', 'scoring', 'td3', 1002, 1005);
INSERT INTO submissions (id, hotkey, commit_block, raw, status, discovered_ms, updated_ms)
    VALUES (4, CAST(x'02' || zeroblob(31) AS BLOB), 38, x'', 'parked', 1003, 1006);
INSERT INTO submission_events (submission_id, at_ms, status, note) VALUES (1, 1000, 'discovered', ''), (1, 1000, 'queued', '');
INSERT INTO jobs (submission_id, run, commit_block, hotkey, stage, state, attempts, available_ms, token, worker, payload, created_ms, updated_ms) VALUES
    (1, 0, 40, zeroblob(32), 'fetch', 'ready', 0, 1000, 0, NULL, 'null', 1000, 1000),
    (3, 0, 39, CAST(x'01' || zeroblob(31) AS BLOB), 'score', 'leased', 1, 61005, 3, 'gpu-0', '{"out":"d3"}', 1002, 1005),
    (4, 0, 38, CAST(x'02' || zeroblob(31) AS BLOB), 'fetch', 'parked', 5, 1006, 9, NULL, 'null', 1003, 1006);
INSERT INTO faults (submission_id, party, code, retryable, message, at_ms) VALUES (4, 'hub', 'HUB_STALLED', 1, 'no byte for 60 s', 1006);
INSERT INTO meta (key, value) VALUES ('last_block', '77');
PRAGMA user_version = 1;
