//! Orders as a table (CSV, RFC 4180): the header names the columns, a row is one line.
//!
//! Deliberately not here: what the server refuses anyway. A row is turned into an order as it
//! stands; only what cannot be turned into one is refused here.

use csv_core::Reader;
use serde_json::Value;

/// Columns every table has.
const REQUIRED: [&str; 7] = [
    "ref",
    "vehicle",
    "functions",
    "not_before",
    "not_after",
    "identity",
    "terminal",
];

/// Columns a table may have.
const OPTIONAL: [&str; 5] = ["lat", "lon", "radius_m", "signing", "max_uses"];

/// Why a header or a row cannot be used: which column, and what is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The column, or `row` or `header` where it is none in particular.
    pub(super) column: &'static str,
    /// What is wrong.
    pub(super) why: String,
}

fn wrong<T>(column: &'static str, why: impl Into<String>) -> Result<T, Wrong> {
    let why = why.into();
    Err(Wrong { column, why })
}

/// A table whose header was read.
pub(super) struct Table {
    /// Which column stands where.
    columns: Vec<&'static str>,
    reader: Reader,
    cells: Vec<u8>,
    ends: Vec<usize>,
}

impl Table {
    /// Reads the header.
    pub(super) fn new(header: &[u8]) -> Result<Self, Wrong> {
        let mut table = Self {
            columns: Vec::new(),
            reader: Reader::new(),
            cells: Vec::new(),
            ends: Vec::new(),
        };
        let header = header.strip_prefix(b"\xef\xbb\xbf").unwrap_or(header);
        let names = table.split(header, "header")?;
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let known = REQUIRED.iter().chain(&OPTIONAL).find(|one| **one == name);
            match known {
                Some(known) if columns.contains(known) => {
                    return wrong(known, "this column stands there twice");
                }
                Some(known) => columns.push(*known),
                None => return wrong("header", format!("there is no column {name:?}")),
            }
        }
        if let Some(missing) = REQUIRED.iter().find(|one| !columns.contains(one)) {
            return wrong(missing, "this column is missing");
        }
        table.columns = columns;
        Ok(table)
    }

    /// Appends a row as an order in JSON, without a line break. Where it fails, nothing was
    /// appended; the row's `ref` comes back where there is one.
    pub(super) fn row(
        &mut self,
        line: &[u8],
        signing: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), (Option<String>, Wrong)> {
        let columns = std::mem::take(&mut self.columns);
        let cells = self.split(line, "row");
        let done = match cells {
            Err(why) => Err((None, why)),
            Ok(cells) => {
                let row = Row {
                    columns: &columns,
                    cells: &cells,
                };
                row.order(signing)
                    .map(|order| out.extend_from_slice(order.as_bytes()))
                    .map_err(|why| (row.cell("ref").map(Into::into), why))
            }
        };
        self.columns = columns;
        done
    }

    /// The cells of a line, blanks around them taken off.
    fn split(&mut self, line: &[u8], what: &'static str) -> Result<Vec<&str>, Wrong> {
        let line = line.trim_ascii_end();
        if line.iter().filter(|b| **b == b'"').count() % 2 == 1 {
            return wrong(what, "a quote without its other on the same line");
        }
        self.reader.reset();
        self.cells.clear();
        self.cells.resize(line.len() + 1, 0);
        // No more cells than bytes, and one.
        self.ends.resize(line.len() + 2, 0);
        let (_, taken, written, begun) =
            self.reader
                .read_record(line, &mut self.cells, &mut self.ends);
        if taken < line.len() {
            return wrong(what, "there is a carriage return within it");
        }
        // An empty input is the end of the text, and so of the row.
        let (cells, ends) = (&mut self.cells[written..], &mut self.ends[begun..]);
        let (_, _, _, more) = self.reader.read_record(b"", cells, ends);
        let count = begun + more;
        let Ok(text) = std::str::from_utf8(&self.cells) else {
            return wrong(what, "it is not UTF-8");
        };
        let mut start = 0;
        let cell = |end: &usize| {
            let cell = text.get(start..*end).unwrap_or_default().trim();
            start = *end;
            cell
        };
        Ok(self.ends[..count].iter().map(cell).collect())
    }
}

/// One row.
struct Row<'a> {
    columns: &'a [&'static str],
    cells: &'a [&'a str],
}

impl<'a> Row<'a> {
    fn order(&self, signing: Option<&str>) -> Result<String, Wrong> {
        if self.cells.len() != self.columns.len() {
            let (cells, columns) = (self.cells.len(), self.columns.len());
            return wrong("row", format!("{cells} cells under {columns} columns"));
        }
        let mut out = String::with_capacity(256);
        let mut open = '{';
        for column in ["ref", "vehicle", "not_before", "not_after"] {
            put(&mut out, open, column, self.required(column)?);
            open = ',';
        }
        let (identity, terminal) = (self.required("identity")?, self.required("terminal")?);
        out.push_str(",\"recipient\":");
        put(&mut out, '{', "identity", identity);
        put(&mut out, ',', "terminal", terminal);
        out.push('}');
        self.functions(&mut out)?;
        self.region(&mut out)?;
        self.max_uses(&mut out)?;
        if let Some(signing) = self.cell("signing").or(signing) {
            put(&mut out, ',', "signing", signing);
        }
        out.push('}');
        Ok(out)
    }

    /// A cell that says something.
    fn cell(&self, column: &str) -> Option<&'a str> {
        let at = self.columns.iter().position(|one| *one == column)?;
        self.cells.get(at).copied().filter(|cell| !cell.is_empty())
    }

    fn required(&self, column: &'static str) -> Result<&'a str, Wrong> {
        match self.cell(column) {
            Some(cell) => Ok(cell),
            None => wrong(column, "it is empty"),
        }
    }

    fn functions(&self, out: &mut String) -> Result<(), Wrong> {
        let mut open = "";
        out.push_str(",\"functions\":[");
        for function in parts(self.required("functions")?) {
            out.push_str(open);
            match function.parse::<u16>() {
                Ok(code) => out.push_str(&code.to_string()),
                Err(_) => out.push_str(&quoted(function)),
            }
            open = ",";
        }
        out.push(']');
        Ok(())
    }

    fn region(&self, out: &mut String) -> Result<(), Wrong> {
        let place = ["lat", "lon", "radius_m"].map(|column| (column, self.cell(column)));
        if place.iter().all(|(_, cell)| cell.is_none()) {
            return Ok(());
        }
        out.push_str(",\"region\":{\"circle\":");
        let mut open = '{';
        for (column, cell) in place {
            let Some(cell) = cell else {
                return wrong(column, "give lat, lon and radius_m, or none of them");
            };
            match serde_json::from_str(cell) {
                Ok(Value::Number(_)) => {
                    out.push(open);
                    for part in ["\"", column, "\":", cell] {
                        out.push_str(part);
                    }
                }
                _ => return wrong(column, "it is not a number"),
            }
            open = ',';
        }
        out.push_str("}}");
        Ok(())
    }

    fn max_uses(&self, out: &mut String) -> Result<(), Wrong> {
        let Some(limits) = self.cell("max_uses") else {
            return Ok(());
        };
        let mut open = '{';
        out.push_str(",\"max_uses\":");
        for limit in parts(limits) {
            let read = limit
                .split_once('=')
                .and_then(|(function, uses)| Some((function, uses.parse::<u32>().ok()?)));
            let Some((function, uses)) = read else {
                return wrong("max_uses", "it is function=number, one after the other");
            };
            out.push(open);
            for part in [&quoted(function), ":", &uses.to_string()] {
                out.push_str(part);
            }
            open = ',';
        }
        if open == '{' {
            out.push('{');
        }
        out.push('}');
        Ok(())
    }
}

/// What stands between blanks and semicolons.
fn parts(cell: &str) -> impl Iterator<Item = &str> {
    cell.split([';', ' ', '\t']).filter(|part| !part.is_empty())
}

fn put(out: &mut String, open: char, name: &str, value: &str) {
    out.push(open);
    for part in ["\"", name, "\":", &quoted(value)] {
        out.push_str(part);
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEADER: &str = "ref,vehicle,functions,not_before,not_after,identity,terminal";

    fn row(header: &str, line: &str) -> Result<Value, Wrong> {
        let mut table = Table::new(header.as_bytes())?;
        let mut out = Vec::new();
        table
            .row(line.as_bytes(), None, &mut out)
            .map_err(|(_, why)| why)?;
        Ok(serde_json::from_slice(&out).expect("JSON"))
    }

    #[test]
    fn a_row_becomes_an_order() {
        let order = row(
            HEADER,
            "a-1, V-1 ,doors.unlock;3 256,N,A,anna,\"an\"\"na, phone\"",
        );
        let expected = json!({
            "ref": "a-1", "vehicle": "V-1", "not_before": "N", "not_after": "A",
            "functions": ["doors.unlock", 3, 256],
            "recipient": { "identity": "anna", "terminal": "an\"na, phone" },
        });
        assert_eq!(order, Ok(expected));
        let header = format!("\u{feff}max_uses,signing,radius_m,lon,lat,{HEADER}");
        let order =
            row(&header, "3=2;doors.unlock=1,tree,500,-2.5,48,r,V,1,N,A,i,t").expect("a row");
        assert_eq!(order["max_uses"], json!({ "3": 2, "doors.unlock": 1 }));
        let circle = json!({ "lat": 48, "lon": -2.5, "radius_m": 500 });
        assert_eq!(order["region"], json!({ "circle": circle }));
        assert_eq!(order["signing"], "tree");
        let order = row(&header, ",,,,,r,V,1,N,A,i,t").expect("a row");
        assert!(order["region"].is_null() && order["signing"].is_null());
    }

    #[test]
    fn rows_follow_each_other_and_signing_is_added_where_none_is_named() {
        let mut table = Table::new(format!("{HEADER},signing\r").as_bytes()).expect("a header");
        let mut out = Vec::new();
        for line in ["a,V,1,N,A,i,t,\r", "b,V,1,N,A,i,t,auto\r"] {
            table
                .row(line.as_bytes(), Some("each"), &mut out)
                .expect("a row");
            out.push(b'\n');
        }
        let rows: Vec<Value> = serde_json::Deserializer::from_slice(&out)
            .into_iter()
            .map(|row| row.expect("JSON"))
            .collect();
        assert_eq!(
            (&rows[0]["ref"], &rows[0]["signing"]),
            (&json!("a"), &json!("each"))
        );
        assert_eq!(
            (&rows[1]["ref"], &rows[1]["signing"]),
            (&json!("b"), &json!("auto"))
        );
    }

    #[test]
    fn what_is_wrong_names_its_column() {
        for (header, column) in [
            ("ref,vehicle", "functions"),
            ("", "ref"),
            (&format!("{HEADER},pin"), "header"),
            (&format!("{HEADER},ref"), "ref"),
        ] {
            assert_eq!(
                Table::new(header.as_bytes()).err().map(|why| why.column),
                Some(column)
            );
        }
        let header = format!("{HEADER},lat,lon,radius_m,max_uses");
        for (line, column) in [
            ("a,V,1,N,A,i", "row"),
            ("a,V,1,N,A,i,t,,,,,", "row"),
            ("a,V,1,N,A,i,,,,,", "terminal"),
            (",V,1,N,A,i,t,,,,", "ref"),
            ("a,V,1,N,A,i,t,1,2,,", "radius_m"),
            ("a,V,1,N,A,i,t,1,x,3,", "lon"),
            ("a,V,1,N,A,i,t,,,,3", "max_uses"),
            ("a,V,1,N,A,i,t,,,,3=x", "max_uses"),
        ] {
            assert_eq!(
                row(&header, line).err().map(|why| why.column),
                Some(column),
                "{line}"
            );
        }
    }
}
