//! Segments of authorizations: floor 2, `store/sqlite`.
//!
//! A segment is a run of neighbouring ids, about [`SEGMENT_LEN`] of them; the segments follow each
//! other as the ids do. Ids are UUIDv7, so what is new goes into the newest. An index that begins
//! with the segment is written to in few places at a time and still lists a vehicle's
//! authorizations in the order of their ids.

use rusqlite::{Connection, params};

use super::error::corrupt;
use crate::domain::AuthorizationId;
use crate::store::StoreError;

/// Authorizations after which the next segment begins.
pub(super) const SEGMENT_LEN: u32 = 1 << 14;

/// All segments, and how full the newest is. Valid while no transaction is rolled back.
pub(super) struct Segments {
    /// Number and first id, ascending in both. The lowest also holds what lies below its first.
    known: Vec<(i64, [u8; 16])>,
    in_newest: u32,
    highest: [u8; 16],
}

impl Segments {
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut known = Vec::new();
        let mut rows =
            connection.prepare_cached("SELECT number, first FROM segments ORDER BY number")?;
        for row in rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            known.push(row?);
        }
        let newest = known.last().map_or(0, |(number, _)| *number);
        let (in_newest, highest): (u32, Option<[u8; 16]>) = connection
            .prepare_cached("SELECT count(*), max(id) FROM authorizations WHERE segment = ?1")?
            .query_row(params![newest], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if !known.is_sorted_by(|a, b| a.1 < b.1) {
            return Err(corrupt("the segments are out of order"));
        }
        Ok(Self {
            known,
            in_newest,
            highest: highest.unwrap_or_default(),
        })
    }

    /// The segment in which `id` belongs, which may begin with it.
    pub(super) fn place(
        &mut self,
        connection: &Connection,
        id: AuthorizationId,
    ) -> Result<i64, StoreError> {
        let below = self.known.partition_point(|(_, first)| *first <= id.0);
        if below < self.known.len() {
            return Ok(self.known[below.saturating_sub(1)].0);
        }
        let newest = self.known.last().map(|(number, _)| *number);
        let number = match newest {
            Some(newest) if self.in_newest < SEGMENT_LEN || id.0 <= self.highest => newest,
            newest => {
                let number = newest.map_or(0, |newest| newest + 1);
                connection
                    .prepare_cached("INSERT INTO segments (number, first) VALUES (?1, ?2)")?
                    .execute(params![number, id.bytes()])?;
                self.known.push((number, id.0));
                self.in_newest = 0;
                number
            }
        };
        self.in_newest += 1;
        self.highest = self.highest.max(id.0);
        Ok(number)
    }

    /// Forgets segments that hold nothing any more; their ids belong to the ones before.
    pub(super) fn forget_empty(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let forgotten = connection
            .prepare_cached(
                "DELETE FROM segments WHERE number < (SELECT max(number) FROM segments)
                 AND NOT EXISTS (SELECT 1 FROM authorizations a WHERE a.segment = segments.number)",
            )?
            .execute([])?;
        if forgotten > 0 {
            *self = Self::load(connection)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::schema;

    fn id(number: u64) -> AuthorizationId {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        AuthorizationId(id)
    }

    fn insert(connection: &Connection, segments: &mut Segments, number: u64) -> i64 {
        let segment = segments.place(connection, id(number)).unwrap();
        connection
            .execute(
                "INSERT INTO authorizations VALUES (?1, 1, ?2, 1, 1, 0, 0, NULL, 0, 0, NULL, 1, x'', NULL,
                 NULL)",
                params![id(number).bytes(), segment],
            )
            .unwrap();
        segment
    }

    /// Every id of a segment lies below every id of the next.
    fn check(connection: &Connection) {
        let mut ranges = connection
            .prepare(
                "SELECT min(id), max(id) FROM authorizations GROUP BY segment ORDER BY segment",
            )
            .unwrap();
        let ranges = ranges
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        let ranges: Vec<([u8; 16], [u8; 16])> = ranges.map(Result::unwrap).collect();
        assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }

    #[test]
    fn segments_follow_each_other_as_ids_do() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::create(&mut connection).unwrap();
        let mut segments = Segments::load(&connection).unwrap();
        let len = u64::from(SEGMENT_LEN);
        for number in 1..=3 * len {
            let expected = (number - 1) / len;
            assert_eq!(
                insert(&connection, &mut segments, 10 * number),
                expected as i64
            );
        }
        // Late ones go where their neighbours are, also after loading.
        for late in [1, 2] {
            assert_eq!(insert(&connection, &mut segments, late), 0);
            assert_eq!(insert(&connection, &mut segments, 10 * len + late), 0);
            assert_eq!(insert(&connection, &mut segments, 20 * len - late), 1);
            segments = Segments::load(&connection).unwrap();
        }
        assert_eq!(
            insert(&connection, &mut segments, 30 * len + 1),
            3,
            "the newest is full"
        );
        check(&connection);

        connection
            .execute("DELETE FROM authorizations WHERE segment IN (0, 2)", [])
            .unwrap();
        segments.forget_empty(&connection).unwrap();
        assert_eq!(insert(&connection, &mut segments, 3), 1, "below the lowest");
        assert_eq!(
            insert(&connection, &mut segments, 25 * len),
            1,
            "where one was forgotten"
        );
        assert_eq!(insert(&connection, &mut segments, 40 * len), 3);
        check(&connection);
    }
}
