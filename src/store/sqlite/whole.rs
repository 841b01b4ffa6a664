//! The store as a whole: given out, taken in, fenced; floor 2, `store/sqlite`.

use std::sync::PoisonError;

use super::writer::Writer;
use super::{Sqlite, export, fences, statuses};
use crate::domain::{Restore, UnixTime};
use crate::store::whole::{Entry, Fence, Fenced, FencedOff, Kind, Position, Whole};
use crate::store::{Act, Row, SignedList, StoreError};

impl Whole for Sqlite {
    fn export(
        &self,
        kind: Kind,
        each: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.readers()?
            .lend(|connection| export::export(connection, kind, each))
    }

    fn lists_given_out(
        &self,
        each: &mut dyn FnMut(SignedList) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.readers()?
            .lend(|connection| statuses::given_out(connection, each))
    }

    fn about(&self, kind: Kind) -> Result<u64, StoreError> {
        self.readers()?
            .lend(|connection| export::about(connection, kind))
    }

    fn import(&self, entries: &[Entry], reached: &str) -> Result<(), StoreError> {
        self.write(|writer| writer.import(entries, reached))
            .map(drop)
    }

    fn unspoken(&self) -> Result<Vec<String>, StoreError> {
        self.readers()?.lend(fences::unspoken)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        self.readers()?.lend(fences::is_empty)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.write(Writer::clear).map(drop)
    }
}

impl Fenced for Sqlite {
    fn fence(&self, fence: Fence) -> Result<Option<String>, StoreError> {
        self.readers()?
            .lend(|connection| fences::of(connection, fence))
    }

    fn set_fence(&self, fence: Fence, says: Option<&str>) -> Result<(), StoreError> {
        self.write(|writer| writer.set_fence(fence, says)).map(drop)
    }

    fn position(&self) -> Option<Position> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.as_ref().and_then(Writer::position)
    }

    fn reaches(&self, position: Position) -> Result<bool, StoreError> {
        self.readers()?
            .lend(|connection| fences::reaches(connection, position))
    }

    fn last_written(&self) -> Result<Option<UnixTime>, StoreError> {
        self.readers()?.lend(fences::last_written)
    }

    fn restored(&self) -> Result<Restore, StoreError> {
        let mut last = Restore::default();
        self.readers()?.lend(|connection| {
            fences::restores(connection, &mut |row| {
                if let Row::Restore(restore) = row {
                    last = restore;
                }
            })
        })?;
        Ok(last)
    }

    fn restore(&self, restore: Restore, acts: &[Act]) -> Result<FencedOff, StoreError> {
        let mut off = FencedOff::default();
        self.write(|writer| writer.restore(&restore, acts, &mut off))?;
        Ok(off)
    }
}
