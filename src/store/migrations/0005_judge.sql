-- A verdict belongs to its batch until the batch's hidden controls were passed; NULL means proven.
ALTER TABLE verdicts ADD COLUMN batch TEXT;
CREATE INDEX verdicts_batch ON verdicts (batch) WHERE batch IS NOT NULL;

-- What each provider of judges was asked and paid per day (days since 1970-01-01, UTC).
CREATE TABLE judge_spend (
    day           INTEGER NOT NULL,
    provider      TEXT    NOT NULL,
    calls         INTEGER NOT NULL,
    input_tokens  INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    micro_usd     INTEGER NOT NULL,
    PRIMARY KEY (day, provider)
) STRICT, WITHOUT ROWID;
