//! The open loop: starts each arrival when it is due, whatever became of the earlier ones. One
//! thread does all of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::answer;
use crate::clock::{self, Timer};
use crate::connection::{Connection, Head};
use crate::ledger::{Ending, Ledger, Outcome};
use crate::prepare::Request;
use crate::schedule::{Arrival, Schedule};
use crate::target::Target;
use crate::watch::{self, Sample, Watch};

/// Between the last preparation and the first arrival.
const LEAD: Duration = Duration::from_millis(200);

/// How often it is looked whether all arrivals are over.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How a run is driven.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// How long an answer may take from when it was asked for.
    pub(crate) timeout: Duration,
    /// One in so many bundles is checked; zero checks none.
    pub(crate) check_one_in: usize,
    /// Keys each of them must hold.
    pub(crate) functions: usize,
}

/// A run that is over.
pub(crate) struct Driven {
    /// How each arrival ended.
    pub(crate) ledger: Ledger,
    /// The server, once a second and at both ends.
    pub(crate) samples: Vec<Sample>,
    /// The most connections in use at one time.
    pub(crate) connections_most: usize,
    /// Connections opened for it.
    pub(crate) connections_opened: u64,
    /// CPU of this process over the run, in seconds.
    pub(crate) client_cpu_s: f64,
    /// CPU of the server's threads over the run, in seconds.
    pub(crate) server_threads: BTreeMap<String, f64>,
}

struct Run {
    target: Rc<Target>,
    requests: Vec<Request>,
    settings: Settings,
    begin: Instant,
    ledger: RefCell<Ledger>,
}

/// Drives `schedule`: one request for each arrival. Returns when every arrival is over.
///
/// # Errors
/// The operating system's, where it gives no timer.
pub(crate) async fn drive(
    target: &Rc<Target>,
    schedule: &Schedule,
    requests: Vec<Request>,
    settings: Settings,
) -> anyhow::Result<Driven> {
    let mut timer = Timer::new()?;
    let (opened, cpu) = (target.pool.opened(), watch::own_usage().cpu_s);
    let threads = |target: &Target| target.pid.map(watch::cpu_by_thread).unwrap_or_default();
    let threads_before = threads(target);
    target.pool.taken_most();
    let run = Rc::new(Run {
        target: Rc::clone(target),
        requests,
        settings,
        begin: clock::now() + LEAD,
        ledger: RefCell::default(),
    });
    let mut watch = Watch::new(target);
    let samples = Rc::new(RefCell::new(vec![watch.look(0.0).await]));
    let watching = tokio::task::spawn_local(watch_on(watch, run.begin, Rc::clone(&samples)));
    for (index, arrival) in schedule.arrivals.iter().enumerate() {
        timer.until(run.begin + arrival.due).await?;
        match target.pool.take() {
            Some(connection) => {
                let run = Rc::clone(&run);
                tokio::task::spawn_local(one(run, index, *arrival, connection));
            }
            None => run.over(*arrival, clock::now(), Ending::Dropped),
        }
    }
    while run.ledger.borrow().outcomes.len() < schedule.arrivals.len() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    watching.abort();
    let at_s = (clock::now() - run.begin).as_secs_f64();
    let mut samples = samples.take();
    samples.push(Watch::new(target).look(at_s).await);
    Ok(Driven {
        ledger: run.ledger.take(),
        samples,
        connections_most: target.pool.taken_most(),
        connections_opened: target.pool.opened() - opened,
        client_cpu_s: watch::own_usage().cpu_s - cpu,
        server_threads: since(threads(target), &threads_before),
    })
}

/// What was spent since `before`.
fn since(mut now: BTreeMap<String, f64>, before: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    for (name, cpu_s) in &mut now {
        *cpu_s -= before.get(name).copied().unwrap_or_default();
    }
    now
}

async fn watch_on(mut watch: Watch, begin: Instant, samples: Rc<RefCell<Vec<Sample>>>) {
    for second in 1.. {
        tokio::time::sleep_until((begin + Duration::from_secs(second)).into()).await;
        let sample = watch.look(second as f64).await;
        samples.borrow_mut().push(sample);
    }
}

/// One arrival, from its connection to its outcome.
async fn one(run: Rc<Run>, index: usize, arrival: Arrival, mut connection: Connection) {
    let started = clock::now();
    let request = &run.requests[index];
    let asked = connection.exchange(&request.bytes);
    let ending = match tokio::time::timeout(run.settings.timeout, asked).await {
        Err(_) => Ending::TimedOut,
        Ok(Err(error)) => {
            let mut ledger = run.ledger.borrow_mut();
            ledger.trouble(|| format!("a connection failed: {error}"));
            Ending::Broken
        }
        Ok(Ok(head)) => run.answered(index, &head, connection.body(&head)),
    };
    run.target.pool.give(connection);
    run.over(arrival, started, ending);
}

impl Run {
    /// Reads an answer as far as the report needs it.
    fn answered(&self, index: usize, head: &Head, body: &[u8]) -> Ending {
        let mut ledger = self.ledger.borrow_mut();
        let code = if head.status < 400 {
            let nth = self.settings.check_one_in;
            if nth > 0 && index.is_multiple_of(nth) {
                ledger.checked += 1;
                let vehicle = &self.requests[index].vehicle;
                if let Err(why) = answer::check(body, vehicle, self.settings.functions) {
                    ledger.misshapen += 1;
                    ledger.trouble(|| why);
                }
            }
            None
        } else {
            answer::refusal_code(body).map(|code| ledger.number(code))
        };
        Ending::Answered {
            status: head.status,
            code,
            retry_after: head.retry_after_s.is_some(),
        }
    }

    fn over(&self, arrival: Arrival, started: Instant, ending: Ending) {
        let due = self.begin + arrival.due;
        self.ledger.borrow_mut().outcomes.push(Outcome {
            phase: arrival.phase,
            due: arrival.due,
            late: started.saturating_duration_since(due),
            took: clock::now().saturating_duration_since(due),
            ending,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::schedule::{Phase, Spacing};

    const BUSY: &str = r#"{"code":"busy"}"#;

    /// A server that answers no redemption before `held` of them have come, and all others at once.
    /// Returns its address.
    fn holding(held: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut waiting: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let read = stream.read(&mut request).unwrap();
                if request[..read].starts_with(b"GET") {
                    stream
                        .write_all(b"HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n")
                        .unwrap();
                    continue;
                }
                waiting.push(stream);
                if waiting.len() == held {
                    for mut stream in waiting.drain(..) {
                        let head = "HTTP/1.1 503 x\r\nretry-after: 1\r\nconnection: close";
                        let length = BUSY.len();
                        let answer = format!("{head}\r\ncontent-length: {length}\r\n\r\n{BUSY}");
                        stream.write_all(answer.as_bytes()).unwrap();
                    }
                }
            }
        });
        url
    }

    fn run(held: usize, arrivals: u32, connections: usize, timeout: Duration) -> Driven {
        let url = holding(held);
        let target = Target::new(&url, None, String::new(), None, connections).unwrap();
        let target = Rc::new(target);
        let phase = Phase {
            name: "test",
            rate_per_s: 100.0,
            seconds: f64::from(arrivals) / 100.0,
        };
        let schedule = Schedule::new(vec![phase], Spacing::Even);
        let request = || Request {
            bytes: target.post("/v1/redemptions", "", "{}"),
            vehicle: String::new(),
        };
        let requests = schedule.arrivals.iter().map(|_| request()).collect();
        let settings = Settings {
            timeout,
            check_one_in: 1,
            functions: 8,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let local = tokio::task::LocalSet::new();
        let driven = local.block_on(&runtime, drive(&target, &schedule, requests, settings));
        driven.unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn no_arrival_waits_for_an_earlier_one_and_latency_counts_from_when_it_was_due() {
        // Who sends the second after the first is answered would wait here for ever.
        let driven = run(20, 20, 100, LONG);
        let outcomes = &driven.ledger.outcomes;
        assert_eq!(outcomes.len(), 20);
        assert!(outcomes.iter().all(|one| one.ending.shed()));
        assert_eq!(driven.connections_most, 20);
        // Nothing is answered before the last is due, at 190 ms.
        let last_due = Duration::from_millis(190);
        assert!(outcomes.iter().all(|one| one.due + one.took >= last_due));
        assert_eq!(driven.ledger.code(0), "busy");
    }

    #[test]
    fn arrivals_beyond_the_connections_are_dropped_and_those_unanswered_time_out() {
        let driven = run(1000, 20, 5, Duration::from_millis(500));
        let count = |ending| {
            let all = driven.ledger.outcomes.iter();
            all.filter(|one| one.ending == ending).count()
        };
        assert_eq!(driven.connections_most, 5);
        assert_eq!(count(Ending::TimedOut) + count(Ending::Dropped), 20);
        // On a machine that stands still the dispatcher may be late for some, not for all of them.
        assert!(count(Ending::Dropped) > 0 && count(Ending::TimedOut) >= 5);
    }
}
