-- Acts are not only rulings from now on, and are read in the order of their times. `number` ascends,
-- and has gaps.
CREATE INDEX acts_by_time ON acts (at, fleet, number);
