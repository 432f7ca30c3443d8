-- The block of the snapshot whose scores a decision follows: its own, or an earlier one when scoring was
-- down and the last good weights were sent again; absent where everything was burnt for want of scores.
ALTER TABLE weight_log ADD COLUMN scored_block INTEGER;
UPDATE weight_log SET scored_block = block;
