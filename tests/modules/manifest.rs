//! `hsm-config/<module>/suite.toml`: what the module cannot do, and how that shows.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the module is called where people read it.
    #[serde(rename = "title")]
    _title: String,
    /// Messages in a large batch: as many as it signs in some seconds.
    pub batch: usize,
    /// By the names of tests.
    #[serde(default)]
    pub cannot: BTreeMap<String, Cannot>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cannot {
    /// Why, in a few words.
    why: String,
    /// What the failure says, in part: another failure is none that was expected.
    says: String,
    /// Whether there are versions that can.
    #[serde(default)]
    some_versions_can: bool,
}

impl Manifest {
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The outcome of a test, and what is to be said of it.
    pub fn judge(&self, test: &str, ended: Result<(), String>) -> (&'static str, String) {
        match (self.cannot.get(test), ended) {
            (None, Ok(())) => ("ok", String::new()),
            (None, Err(error)) => ("failed", error),
            (Some(cannot), Ok(())) if cannot.some_versions_can => ("ok", String::new()),
            (Some(_), Ok(())) => ("failed", "it can: correct its suite.toml".to_owned()),
            (Some(cannot), Err(error)) if error.contains(&cannot.says) => {
                ("cannot", cannot.why.clone())
            }
            (Some(_), Err(error)) => ("failed", error),
        }
    }
}
