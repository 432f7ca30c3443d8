CREATE TABLE weight_log (
    id         INTEGER PRIMARY KEY,
    window_key TEXT    NOT NULL,
    netuid     INTEGER NOT NULL,
    mechanism  INTEGER NOT NULL,
    block      INTEGER NOT NULL,
    weights    TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    state_name TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    opened_ms  INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (netuid, mechanism, window_key)
) STRICT;
CREATE INDEX weight_log_state ON weight_log (state_name, id);

CREATE TABLE weight_events (
    id       INTEGER PRIMARY KEY,
    entry_id INTEGER NOT NULL REFERENCES weight_log (id),
    at_ms    INTEGER NOT NULL,
    state    TEXT    NOT NULL
) STRICT;
CREATE INDEX weight_events_of ON weight_events (entry_id, id);
