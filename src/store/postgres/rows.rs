//! Columns on their way in and out: floor 2, `store/postgres`.

use std::collections::BTreeSet;

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use crate::domain::{FleetId, Refusal, UnixTime};
use crate::store::StoreError;
use crate::store::encoding::{self, corrupt};

/// A column.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column)
        .map_err(|_| corrupt(format!("column {column} is not what it should be")))
}

/// A column's id.
pub(super) fn id(row: &Row, column: usize) -> Result<[u8; 16], StoreError> {
    get::<Uuid>(row, column).map(Uuid::into_bytes)
}

/// A column's text.
pub(super) fn text(row: &Row, column: usize) -> Result<&str, StoreError> {
    get(row, column)
}

/// A column's bytes, of that length.
pub(super) fn bytes<const N: usize>(row: &Row, column: usize) -> Result<[u8; N], StoreError> {
    get::<&[u8]>(row, column)?
        .try_into()
        .map_err(|_| corrupt(format!("column {column} has another length")))
}

/// A column's number.
pub(super) fn number(row: &Row, column: usize) -> Result<u64, StoreError> {
    encoding::number(get(row, column)?)
}

/// A column's number that is a smaller one everywhere else.
pub(super) fn small<T: TryFrom<i64>>(row: &Row, column: usize) -> Result<T, StoreError> {
    T::try_from(get::<i64>(row, column)?)
        .map_err(|_| corrupt(format!("column {column} is out of range")))
}

/// A column's time, or none.
pub(super) fn time(row: &Row, column: usize) -> Result<Option<UnixTime>, StoreError> {
    get::<Option<i64>>(row, column)?
        .map(encoding::number)
        .transpose()
}

/// A column's name; what the alphabet forbids was never written.
pub(super) fn name<T>(
    row: &Row,
    column: usize,
    parse: impl FnOnce(&str) -> Result<T, Refusal>,
) -> Result<T, StoreError> {
    named(parse(text(row, column)?))
}

/// See [`name`].
pub(super) fn named<T>(name: Result<T, Refusal>) -> Result<T, StoreError> {
    name.map_err(|_| corrupt("a name outside its alphabet"))
}

/// Ids as an array.
pub(super) fn uuids<'a>(ids: impl Iterator<Item = &'a [u8; 16]>) -> Vec<Uuid> {
    ids.map(|id| Uuid::from_bytes(*id)).collect()
}

/// Names of fleets as two arrays.
pub(super) fn names<T>(
    names: &BTreeSet<(FleetId, T)>,
    as_str: fn(&T) -> &str,
) -> (Vec<Uuid>, Vec<&str>) {
    names
        .iter()
        .map(|(fleet, name)| (Uuid::from_bytes(fleet.0), as_str(name)))
        .unzip()
}
