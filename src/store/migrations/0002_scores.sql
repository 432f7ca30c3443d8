CREATE TABLE eras (
    era_id     TEXT    PRIMARY KEY,
    from_block INTEGER NOT NULL UNIQUE,
    canonical  TEXT    NOT NULL
) STRICT;

CREATE TABLE rounds (
    era_id      TEXT    NOT NULL REFERENCES eras (era_id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    start_block INTEGER NOT NULL,
    start_hash  BLOB    NOT NULL CHECK (length(start_hash) = 32),
    seed        BLOB    NOT NULL CHECK (length(seed) = 32),
    pack_digest TEXT    NOT NULL,
    items_digest TEXT   NOT NULL,
    items       TEXT    NOT NULL,
    created_ms  INTEGER NOT NULL,
    PRIMARY KEY (era_id, number)
) STRICT;

CREATE TABLE scores (
    id             INTEGER PRIMARY KEY,
    submission_id  INTEGER NOT NULL REFERENCES submissions (id),
    era_id         TEXT    NOT NULL REFERENCES eras (era_id),
    round          INTEGER NOT NULL,
    value          REAL    NOT NULL CHECK (value BETWEEN 0 AND 1),
    standard_error REAL    NOT NULL CHECK (standard_error >= 0),
    n              INTEGER NOT NULL CHECK (n > 0),
    gates          TEXT    NOT NULL,
    image_id       TEXT    NOT NULL,
    runner         TEXT    NOT NULL,
    engine         TEXT    NOT NULL,
    pack_digest    TEXT    NOT NULL,
    seed           TEXT    NOT NULL,
    judge_id       TEXT    NOT NULL,
    prompt_version TEXT    NOT NULL,
    tensor_digest  TEXT    NOT NULL,
    replies_digest TEXT    NOT NULL,
    created_ms     INTEGER NOT NULL,
    FOREIGN KEY (era_id, round) REFERENCES rounds (era_id, number)
) STRICT;
CREATE INDEX scores_latest ON scores (era_id, submission_id, round, id);
CREATE INDEX scores_of ON scores (submission_id, id);

CREATE TABLE item_scores (
    score_id INTEGER NOT NULL REFERENCES scores (id),
    item     TEXT    NOT NULL,
    value    REAL    NOT NULL CHECK (value BETWEEN 0 AND 1),
    PRIMARY KEY (score_id, item)
) STRICT, WITHOUT ROWID;

CREATE TABLE verdicts (
    key        TEXT    PRIMARY KEY,
    value      TEXT    NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
