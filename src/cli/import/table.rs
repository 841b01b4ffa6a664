//! Entries of the registry as a table: the header names the columns, a row is one line.
//!
//! A row is turned into an entry as it stands, an empty cell into nothing. Deliberately not here:
//! what the server refuses anyway, such as a column that does not go with the row's kind.

use serde_json::Value;

use crate::cli::csv::{Cells, Wrong, columns, parts, put, put_raw, quoted, wrong};

/// Columns that are members of that name, as they stand.
const PLAIN: [&str; 7] = ["kind", "id", "model", "owner", "status", "hold", "identity"];

/// Columns whose cells say more.
const OTHERS: [&str; 3] = ["functions", "licences", "jwk"];

/// A table whose header was read.
pub(super) struct Table {
    columns: Vec<&'static str>,
    /// The kind of every row, where no column says it.
    kind: Option<&'static str>,
    cells: Cells,
}

impl Table {
    /// Reads the header.
    pub(super) fn new(header: &[u8], kind: Option<&'static str>) -> Result<Self, Wrong> {
        let mut cells = Cells::default();
        let known: Vec<_> = PLAIN.into_iter().chain(OTHERS).collect();
        let columns = columns(&cells.header(header)?, &known)?;
        if !columns.contains(&"id") {
            return wrong("id", "this column is missing");
        }
        match (columns.contains(&"kind"), kind) {
            (false, None) => {
                return wrong("kind", "this column is missing; or say --kind for all rows");
            }
            (true, Some(_)) => {
                return wrong("kind", "there is such a column: leave out --kind");
            }
            _ => {}
        }
        Ok(Self {
            columns,
            kind,
            cells,
        })
    }

    /// Appends a row as an entry in JSON, without a line break. Where it fails, nothing was
    /// appended; the row's id comes back where there is one.
    pub(super) fn row(
        &mut self,
        line: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), (Option<String>, Wrong)> {
        let cells = self.cells.split(line, "row").map_err(|why| (None, why))?;
        let id = self.columns.iter().position(|one| *one == "id");
        let id = id.and_then(|at| cells.get(at).map(|id| (*id).to_owned()));
        match entry(&self.columns, &cells, self.kind) {
            Ok(entry) => out.extend_from_slice(entry.as_bytes()),
            Err(why) => return Err((id, why)),
        }
        Ok(())
    }
}

fn entry(
    columns: &[&'static str],
    cells: &[&str],
    kind: Option<&'static str>,
) -> Result<String, Wrong> {
    if cells.len() != columns.len() {
        let (cells, columns) = (cells.len(), columns.len());
        return wrong("row", format!("{cells} cells under {columns} columns"));
    }
    let mut out = String::with_capacity(256);
    let mut open = '{';
    let said = columns
        .iter()
        .zip(cells)
        .filter(|(_, cell)| !cell.is_empty());
    for (column, cell) in kind.iter().map(|kind| (&"kind", kind)).chain(said) {
        match *column {
            "functions" => put_raw(&mut out, open, column, &functions(cell)),
            "licences" => put_raw(&mut out, open, column, &licences(cell)?),
            "jwk" => match serde_json::from_str::<Value>(cell) {
                Ok(Value::Object(_)) => put_raw(&mut out, open, column, cell),
                _ => return wrong("jwk", "it is not a JSON object"),
            },
            _ => put(&mut out, open, column, cell),
        }
        open = ',';
    }
    if open == '{' {
        out.push('{');
    }
    out.push('}');
    Ok(out)
}

/// `doors.unlock;3;300=ramp.lower`: names, codes, and functions of the fleet's own.
fn functions(cell: &str) -> String {
    let one = |part: &str| {
        let own = part.split_once('=');
        match own.and_then(|(code, name)| Some((code.parse::<u16>().ok()?, name))) {
            Some((code, name)) => format!("{{\"code\":{code},\"name\":{}}}", quoted(name)),
            None => match part.parse::<u16>() {
                Ok(code) => code.to_string(),
                Err(_) => quoted(part),
            },
        }
    };
    let all: Vec<_> = parts(cell).map(one).collect();
    format!("[{}]", all.join(","))
}

/// `B=2031-06-30T00:00:00Z;C1=2030-01-01T00:00:00Z`.
fn licences(cell: &str) -> Result<String, Wrong> {
    let one = |part: &str| match part.split_once('=') {
        Some((class, expires)) => Ok(format!(
            "{{\"class\":{},\"expires\":{}}}",
            quoted(class),
            quoted(expires)
        )),
        None => wrong("licences", "it is class=time, one after the other"),
    };
    let all: Vec<_> = parts(cell).map(one).collect::<Result<_, _>>()?;
    Ok(format!("[{}]", all.join(",")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(header: &str, kind: Option<&'static str>, line: &str) -> Result<Value, Wrong> {
        let mut table = Table::new(header.as_bytes(), kind)?;
        let mut out = Vec::new();
        let done = table.row(line.as_bytes(), &mut out);
        done.map_err(|(_, why)| why)?;
        Ok(serde_json::from_slice(&out).expect("JSON"))
    }

    #[test]
    fn rows_become_entries() {
        let header = "\u{feff}kind,id,model,functions,owner,jwk";
        let line = "vehicle, V-1 ,\"A \"\"big\"\" van\",doors.unlock;3 300=ramp.lower,,\"{\"\"kty\"\":\"\"EC\"\"}\"\r";
        let functions = json!(["doors.unlock", 3, { "code": 300, "name": "ramp.lower" }]);
        let expected = json!({ "kind": "vehicle", "id": "V-1", "model": "A \"big\" van",
            "functions": functions, "jwk": { "kty": "EC" } });
        assert_eq!(row(header, None, line), Ok(expected));
        let line = "anna,B=2031-06-30T00:00:00Z;C1=2030-01-01T00:00:00Z,";
        let expected = json!({ "kind": "identity", "id": "anna", "licences": [
            { "class": "B", "expires": "2031-06-30T00:00:00Z" },
            { "class": "C1", "expires": "2030-01-01T00:00:00Z" }] });
        let found = row("id,licences,status", Some("identity"), line);
        assert_eq!(found, Ok(expected));
        assert_eq!(row("kind,id", None, ","), Ok(json!({})));
    }

    #[test]
    fn what_is_wrong_names_its_column() {
        for (header, kind, line, column) in [
            ("kind,model", None, "", "id"),
            ("id", None, "", "kind"),
            ("kind,id", Some("vehicle"), "", "kind"),
            ("kind,id,id", None, "", "id"),
            ("kind,id,colour", None, "", "header"),
            ("kind,id", None, "vehicle", "row"),
            ("kind,id,licences", None, "identity,a,B", "licences"),
            ("kind,id,jwk", None, "terminal,a,x", "jwk"),
            ("kind,id,jwk", None, "terminal,a,[]", "jwk"),
            ("kind,id", None, "vehicle,\"a", "row"),
        ] {
            let why = row(header, kind, line).err();
            assert_eq!(why.map(|why| why.column), Some(column), "{header}: {line}");
        }
    }
}
