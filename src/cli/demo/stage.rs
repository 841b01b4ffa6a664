//! How a step is shown: as text for a reader, who may want to stop and read, or as JSON.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use serde::Serialize;

/// What is waited for before the next step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pause {
    /// The reader.
    Enter,
    /// So many seconds.
    Seconds(u32),
}

/// Where the story is told.
pub(super) struct Stage {
    json: bool,
    pause: Option<Pause>,
    told: u32,
}

/// A step, as far as it has come.
#[derive(Default, Serialize)]
pub(super) struct Step {
    step: u32,
    title: &'static str,
    /// What happened, in order.
    happened: Vec<Event>,
    /// Whether all of it came as it must.
    holds: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
}

#[derive(Serialize)]
struct Event {
    who: &'static str,
    what: String,
}

impl Step {
    fn event(&mut self, who: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.happened.push(Event { who, what });
    }

    /// What was sent, or typed.
    pub(super) fn sent(&mut self, what: impl Into<String>) {
        self.event("sent", what);
    }

    /// What came back.
    pub(super) fn answer(&mut self, what: impl Into<String>) {
        self.event("answer", what);
    }

    /// What the car says.
    pub(super) fn car(&mut self, what: impl Into<String>) {
        self.event("car", what);
    }

    /// What it means.
    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.event("so", what);
    }
}

impl Stage {
    pub(super) fn new(json: bool, pause: Option<Pause>) -> Self {
        Self {
            json,
            pause,
            told: 0,
        }
    }

    /// Tells a step: its title, then what happens in it.
    pub(super) fn step(
        &mut self,
        title: &'static str,
        scene: impl FnOnce(&mut Step) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.told > 0 {
            self.wait()?;
        }
        self.told += 1;
        let mut step = Step {
            step: self.told,
            title,
            ..Step::default()
        };
        self.say(&step.headline());
        let went = scene(&mut step);
        step.holds = went.is_ok();
        step.why_not = went.as_ref().err().map(|why| format!("{why:#}"));
        if self.json {
            println(&serde_json::to_string(&step)?)?;
        } else {
            self.say(&step.text());
        }
        went.map_err(|why| why.context(format!("step {}: the story does not hold", self.told)))
    }

    fn say(&self, text: &str) {
        if !self.json {
            // A closed pipe is the reader's choice; the steps are gone through all the same.
            let _ = println(text);
        }
    }

    fn wait(&self) -> anyhow::Result<()> {
        match self.pause {
            None => {}
            Some(Pause::Seconds(seconds)) => {
                std::thread::sleep(Duration::from_secs(seconds.into()));
            }
            Some(Pause::Enter) => {
                let mut stdin = std::io::stdin().lock();
                if !self.json && std::io::stdin().is_terminal() {
                    print!("[Enter]");
                    std::io::stdout().flush()?;
                }
                // At the end of the input nobody is asked any more.
                stdin.read_line(&mut String::new())?;
            }
        }
        Ok(())
    }
}

impl Step {
    fn headline(&self) -> String {
        format!("{:2}  {}", self.step, self.title)
    }

    fn text(&self) -> String {
        let mut lines: Vec<String> = self
            .happened
            .iter()
            .map(|Event { who, what }| format!("    {who:<8}{what}"))
            .collect();
        lines.extend(
            self.why_not
                .as_ref()
                .map(|why| format!("    BUT     {why}")),
        );
        lines.push(String::new());
        lines.join("\n")
    }
}

fn println(text: &str) -> std::io::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// The beginning of something long.
pub(super) fn short(text: &str) -> String {
    const LEN: usize = 24;
    match text.char_indices().nth(LEN) {
        Some((at, _)) => format!("{}… ({} characters)", &text[..at], text.len()),
        None => text.into(),
    }
}
