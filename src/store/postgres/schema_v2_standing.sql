-- What keeps everybody from serving from this store: `unfinished` while it is copied into, `moved`
-- once another has taken its place.
CREATE TABLE fences (
    name TEXT PRIMARY KEY,
    says TEXT NOT NULL
);
