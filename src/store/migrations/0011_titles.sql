-- With whom a round began: the champion by the scores that there were then. Written once.
CREATE TABLE titles (
    era_id        TEXT    NOT NULL REFERENCES eras (era_id) ON DELETE CASCADE,
    round         INTEGER NOT NULL,
    submission_id INTEGER NOT NULL REFERENCES submissions (id),
    PRIMARY KEY (era_id, round)
) STRICT, WITHOUT ROWID;
