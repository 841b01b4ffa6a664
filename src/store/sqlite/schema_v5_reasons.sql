-- Why a key is suspended: 1 its function, 2 its authorization, 4 its identity, 8 its vehicle, added
-- up. Of a key that is revoked it counts no more. Until now there was one reason.
ALTER TABLE statuses ADD COLUMN reasons INTEGER NOT NULL DEFAULT 0;

UPDATE statuses SET reasons = 2 WHERE status = 2;
