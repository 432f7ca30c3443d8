-- Bytes of the fetched model; a worker takes models up to its size class. 0 until they are known.
ALTER TABLE jobs ADD COLUMN model_bytes INTEGER NOT NULL DEFAULT 0;
