-- A round draws from several packs and has buckets by its start time.
ALTER TABLE rounds ADD COLUMN start_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rounds ADD COLUMN packs TEXT NOT NULL DEFAULT '[]';
UPDATE rounds SET packs = json_array(pack_digest);
