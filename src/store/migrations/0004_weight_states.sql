-- "confirmed" is called what it is: read back from the chain.
UPDATE weight_log
SET state_name = 'read_back', state = json_set(state, '$.state', 'read_back')
WHERE state_name = 'confirmed';

UPDATE weight_events
SET state = json_set(state, '$.state', 'read_back')
WHERE json_extract(state, '$.state') = 'confirmed';

-- What was signed says when it can no longer come. Entries without that word get an era longer than
-- any that was signed.
UPDATE weight_events
SET state = json_set(state,
    '$.born', (SELECT block FROM weight_log WHERE id = entry_id),
    '$.dies', (SELECT block + 128 FROM weight_log WHERE id = entry_id))
WHERE json_extract(state, '$.state') = 'signed';

UPDATE weight_log
SET state = json_set(state, '$.born', block, '$.dies', block + 128)
WHERE state_name = 'signed';
