-- When an identity was last proved, as its fleet says; null where it never says so.
ALTER TABLE identities ADD COLUMN proved BIGINT;

-- When a terminal was first seen with its key; 0 for those that were there before this was kept.
ALTER TABLE terminals ADD COLUMN since BIGINT NOT NULL DEFAULT 0;
