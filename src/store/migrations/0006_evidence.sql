-- What length control and the check for known items need of each item; unknown for older scores.
ALTER TABLE item_scores ADD COLUMN reply_chars INTEGER CHECK (reply_chars >= 0);
ALTER TABLE item_scores ADD COLUMN reference_chars INTEGER CHECK (reference_chars >= 0);
ALTER TABLE item_scores ADD COLUMN anchor INTEGER NOT NULL DEFAULT 0 CHECK (anchor IN (0, 1));
CREATE INDEX scores_round ON scores (era_id, round, submission_id, id);

-- The newest ranking of an era, as the node computed it; shown, never read back by a rule.
CREATE TABLE standings (
    era_id     TEXT    PRIMARY KEY REFERENCES eras (era_id) ON DELETE CASCADE,
    block      INTEGER NOT NULL,
    ranking    TEXT    NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT;
