-- Which terminal has vouched for one, and when; neither where the fleet has.
ALTER TABLE terminals ADD COLUMN attested_by TEXT;
ALTER TABLE terminals ADD COLUMN attested_at BIGINT;

-- When a token was used last, as far as that was written down.
ALTER TABLE tokens ADD COLUMN used_at BIGINT;
