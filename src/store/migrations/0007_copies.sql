-- What is kept of models to know them again. `sketch` and `probes` are SCALE-encoded; models are
-- compared within one `shape` and within one round and `scorer`.
CREATE TABLE sketches (
    submission_id INTEGER PRIMARY KEY REFERENCES submissions (id),
    shape         TEXT    NOT NULL,
    sketch        BLOB    NOT NULL
) STRICT;
CREATE INDEX sketches_shape ON sketches (shape, submission_id);

CREATE TABLE behaviours (
    era_id        TEXT    NOT NULL REFERENCES eras (era_id),
    round         INTEGER NOT NULL,
    submission_id INTEGER NOT NULL REFERENCES submissions (id),
    scorer        TEXT    NOT NULL,
    probes        BLOB    NOT NULL,
    PRIMARY KEY (era_id, round, submission_id)
) STRICT;

-- Each pair once, under the younger: the closest finding by each measure.
CREATE TABLE likenesses (
    submission_id INTEGER NOT NULL REFERENCES submissions (id),
    elder_id      INTEGER NOT NULL REFERENCES submissions (id),
    measure       TEXT    NOT NULL,
    value         REAL    NOT NULL,
    kinship       TEXT    NOT NULL,
    at_ms         INTEGER NOT NULL,
    PRIMARY KEY (submission_id, elder_id, measure)
) STRICT;
