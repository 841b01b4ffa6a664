//! The store as a whole: given out, taken in, fenced; floor 2, `store/postgres`.

use std::sync::{Arc, PoisonError};

use super::ground::Ground;
use super::session::Session;
use super::write::Writing;
use super::{Postgres, acts, export, fences, import, load, rows, schema};
use crate::domain::{Restore, UnixTime};
use crate::store::whole::{Entry, Fence, Fenced, FencedOff, Kind, Position, Whole};
use crate::store::{Act, Row, SignedList, StoreError};

impl Whole for Postgres {
    fn export(
        &self,
        kind: Kind,
        each: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.check_open()?;
        // As for `load`.
        self.wait(async {
            let session = Session::open(&self.address).await?;
            Ok(export::export(&session, kind, each).await?)
        })
    }

    fn lists_given_out(
        &self,
        each: &mut dyn FnMut(SignedList) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let rows =
            self.read(async |session: &Session| Ok(session.query(export::LISTS, vec![]).await?))?;
        for row in &rows {
            if let Some(Row::List(list)) = load::signed_list(row)? {
                each(Arc::unwrap_or_clone(list))?;
            }
        }
        Ok(())
    }

    fn about(&self, kind: Kind) -> Result<u64, StoreError> {
        self.read(async |session: &Session| export::about(session, kind).await)
    }

    fn import(&self, entries: &[Entry], reached: &str) -> Result<(), StoreError> {
        let mut asks = import::asks(entries)?;
        asks.push(fences::set(Fence::Unfinished, Some(reached)));
        self.write(asks).map(drop)?;
        self.forget();
        Ok(())
    }

    fn unspoken(&self) -> Result<Vec<String>, StoreError> {
        self.read(async |session: &Session| fences::unspoken(session).await)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        self.read(async |session: &Session| Ok(!schema::is_used(session).await?))
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.write(fences::clear()).map(drop)?;
        self.forget();
        Ok(())
    }
}

impl Fenced for Postgres {
    fn fence(&self, fence: Fence) -> Result<Option<String>, StoreError> {
        self.read(async |session: &Session| fences::of(session, fence).await)
    }

    fn set_fence(&self, fence: Fence, says: Option<&str>) -> Result<(), StoreError> {
        self.write(vec![fences::set(fence, says)]).map(drop)
    }

    fn position(&self) -> Option<Position> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.position()
    }

    fn reaches(&self, position: Position) -> Result<bool, StoreError> {
        self.read(async |session: &Session| fences::reaches(session, position).await)
    }

    fn last_written(&self) -> Result<Option<UnixTime>, StoreError> {
        self.read(async |session: &Session| fences::last_written(session).await)
    }

    fn restored(&self) -> Result<Restore, StoreError> {
        self.read(async |session: &Session| fences::restored(session).await)
    }

    fn restore(&self, restore: Restore, acts: &[Act]) -> Result<FencedOff, StoreError> {
        let mut ground = Ground::default();
        for act in acts {
            acts::keep(&mut ground, act)?;
        }
        let mut writing = Writing(fences::restore(&restore)?);
        writing.acts(&ground)?;
        let answers = self.write(writing.0)?;
        // After `BEGIN`.
        let count = |at: usize| {
            let row = answers.get(at).and_then(|rows| rows.first());
            row.map_or(Ok(0), |row| rows::number(row, 0))
        };
        Ok(FencedOff {
            code_sets: count(1)?,
            vehicles: count(2)?,
            fleets: count(3)?,
        })
    }
}
