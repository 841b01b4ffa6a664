-- Bundles whose epoch was revoked are signed again: a row of `reissues` then stands for the first
-- issue too, with its version, or in place of itself. Finds those that an epoch signed.
CREATE INDEX reissues_by_epoch ON reissues (epoch);
