-- Names tell rows apart and fleets hardly do: with the name in front, one column is compared on the
-- way to a row's place, and not two or three.
DROP INDEX bundles_by_identity;

CREATE INDEX bundles_by_identity ON bundles (identity, fleet);

DROP INDEX orders_by_vehicle;

CREATE INDEX orders_by_vehicle ON bundles (vehicle, fleet, id) WHERE author IS NOT NULL;
