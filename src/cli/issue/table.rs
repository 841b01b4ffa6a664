//! Orders as a table (CSV, RFC 4180): the header names the columns, a row is one line.
//!
//! Deliberately not here: what the server refuses anyway. A row is turned into an order as it
//! stands; only what cannot be turned into one is refused here.

use serde_json::Value;

use crate::cli::csv::{Cells, Wrong, columns, parts, put, quoted, wrong};

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

/// A table whose header was read.
pub(super) struct Table {
    /// Which column stands where.
    columns: Vec<&'static str>,
    cells: Cells,
}

impl Table {
    /// Reads the header.
    pub(super) fn new(header: &[u8]) -> Result<Self, Wrong> {
        let mut cells = Cells::default();
        let known: Vec<_> = REQUIRED.into_iter().chain(OPTIONAL).collect();
        let columns = columns(&cells.header(header)?, &known)?;
        if let Some(missing) = REQUIRED.iter().find(|one| !columns.contains(one)) {
            return wrong(missing, "this column is missing");
        }
        Ok(Self { columns, cells })
    }

    /// Appends a row as an order in JSON, without a line break. Where it fails, nothing was
    /// appended; the row's `ref` comes back where there is one.
    pub(super) fn row(
        &mut self,
        line: &[u8],
        signing: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), (Option<String>, Wrong)> {
        let cells = self.cells.split(line, "row").map_err(|why| (None, why))?;
        let row = Row {
            columns: &self.columns,
            cells: &cells,
        };
        let order = row
            .order(signing)
            .map_err(|why| (row.cell("ref").map(Into::into), why))?;
        out.extend_from_slice(order.as_bytes());
        Ok(())
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
