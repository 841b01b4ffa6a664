-- Why a key is suspended: 1 its function, 2 its authorization, 4 its identity, 8 its vehicle, added
-- up. Of a key that is revoked it counts no more. Until now there was one reason.
ALTER TABLE statuses ADD COLUMN reasons INTEGER NOT NULL DEFAULT 0;

UPDATE statuses SET reasons = 2 WHERE status = 2;

-- When the last of those ends that were given out of each status list. Until now it was not kept,
-- and none lived longer than 366 days.
ALTER TABLE status_lists ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;

UPDATE status_lists SET expires = issued_at + 366 * 86400;
