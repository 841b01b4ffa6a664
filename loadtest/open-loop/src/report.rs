//! Figures from a run: by phase and by second, and whether the run may be believed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::drive::Driven;
use crate::ledger::{Ending, Latency, Ledger, Outcome};
use crate::schedule::{Phase, Schedule};
use crate::watch::{Sample, Usage};

/// How late the client may begin, at the 99th percentile in milliseconds, without a remark.
const LATE_P99_MAX_MS: f64 = 20.0;

/// How much of a processor others may use without a remark.
const OTHERS_CPUS_MAX: f64 = 0.1;

/// A run in figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunReport {
    /// Whether every arrival found a connection and every bundle looked at is as it must be.
    pub(crate) valid: bool,
    /// Why not.
    pub(crate) invalid_because: Vec<String>,
    /// What else whoever reads the figures should know.
    pub(crate) remarks: Vec<String>,
    /// By phase.
    pub(crate) phases: Vec<PhaseReport>,
    /// By second in which arrivals were due.
    pub(crate) timeline: Vec<Second>,
    /// The server's process.
    pub(crate) server: ServerReport,
    /// This process.
    pub(crate) client: ClientReport,
    /// Processors that others than server and client kept busy meanwhile.
    pub(crate) others_cpus: Option<f64>,
}

/// One phase in figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PhaseReport {
    /// Its name.
    pub(crate) name: &'static str,
    /// How long it is.
    pub(crate) seconds: f64,
    /// The rate that was asked for.
    pub(crate) rate_per_s: f64,
    /// Arrivals that were due, by the second.
    pub(crate) offered_per_s: f64,
    /// Bundles, by the second from the phase's beginning to the last answer to one of its arrivals.
    pub(crate) sustained_per_s: f64,
    /// Arrivals.
    pub(crate) arrivals: usize,
    /// Arrivals that found no free connection. A run with any is not valid.
    pub(crate) dropped: usize,
    /// Arrivals that got no answer in time.
    pub(crate) timed_out: usize,
    /// Arrivals whose connection failed.
    pub(crate) broken: usize,
    /// Those that got their bundle.
    pub(crate) admitted: Latency,
    /// Those that were told no.
    pub(crate) refused: Latency,
    /// Refusals other than a 503 with `Retry-After`.
    pub(crate) refused_otherwise: usize,
    /// Answers by status.
    pub(crate) statuses: BTreeMap<u16, usize>,
    /// Refusals by code.
    pub(crate) codes: BTreeMap<String, usize>,
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Second {
    /// Counted from the run's beginning.
    pub(crate) second: usize,
    /// Arrivals due in it.
    pub(crate) arrivals: usize,
    /// Of these, how many got their bundle, whenever that was.
    pub(crate) admitted: usize,
    /// Of these, how many were answered 503.
    pub(crate) answered_503: usize,
    /// Of these, all the others.
    pub(crate) other: usize,
    /// Bundles that arrived in this second, whenever they were asked for.
    pub(crate) bundles: usize,
    /// Latency of the admitted among the arrivals.
    pub(crate) p50_ms: f64,
    /// The same.
    pub(crate) p99_ms: f64,
    /// The server's memory at its end.
    pub(crate) rss_mib: Option<f64>,
    /// Processors the server kept busy in it.
    pub(crate) cpus: Option<f64>,
    /// Redemptions that waited to be batched at its end.
    pub(crate) queue: Option<f64>,
}

/// The server's process over a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerReport {
    /// Before the first arrival.
    pub(crate) rss_before_mib: Option<f64>,
    /// After the last answer.
    pub(crate) rss_after_mib: Option<f64>,
    /// The most that was seen.
    pub(crate) rss_most_mib: Option<f64>,
    /// CPU over the run.
    pub(crate) cpu_s: Option<f64>,
    /// CPU for each bundle, in microseconds.
    pub(crate) cpu_us_per_bundle: Option<f64>,
    /// CPU over the run, in seconds, by thread.
    pub(crate) cpu_s_by_thread: BTreeMap<String, f64>,
}

/// This process over a run: whether it was the bottleneck.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClientReport {
    /// CPU over the run.
    pub(crate) cpu_s: f64,
    /// CPU for each arrival, in microseconds.
    pub(crate) cpu_us_per_arrival: f64,
    /// How late arrivals were begun. It is part of their latency.
    pub(crate) late: Latency,
    /// The most connections in use at one time.
    pub(crate) connections_most: usize,
    /// Connections opened.
    pub(crate) connections_opened: u64,
    /// Bundles looked at closely.
    pub(crate) checked: u64,
    /// Those that were not as they must be.
    pub(crate) misshapen: u64,
    /// What went wrong first.
    pub(crate) first_trouble: Option<String>,
}

impl RunReport {
    /// Of a run that is over. `measured` says from which phase on its figures count; what comes
    /// before is warming up, and is in the time line alone.
    pub(crate) fn new(schedule: &Schedule, driven: &Driven, measured: usize) -> Self {
        let ledger = &driven.ledger;
        let phases: Vec<_> = (measured..schedule.phases.len())
            .map(|index| PhaseReport::new(schedule, ledger, index))
            .collect();
        let client = ClientReport::new(driven);
        let server = ServerReport::new(driven);
        let others_cpus = others_cpus(&driven.samples, client.cpu_s);
        let invalid_because = complaints(&phases, &client);
        Self {
            valid: invalid_because.is_empty(),
            invalid_because,
            remarks: remarks(&phases, &client, others_cpus),
            phases,
            timeline: timeline(schedule, ledger, &driven.samples),
            server,
            client,
            others_cpus,
        }
    }
}

fn complaints(phases: &[PhaseReport], client: &ClientReport) -> Vec<String> {
    let dropped: usize = phases.iter().map(|phase| phase.dropped).sum();
    let mut found = Vec::new();
    if dropped > 0 {
        found.push(format!("{dropped} arrivals found no free connection"));
    }
    if client.misshapen > 0 {
        let (bad, all) = (client.misshapen, client.checked);
        found.push(format!("{bad} of {all} bundles are not as they must be"));
    }
    found
}

fn remarks(phases: &[PhaseReport], client: &ClientReport, others: Option<f64>) -> Vec<String> {
    let unanswered: usize = phases.iter().map(PhaseReport::unanswered).sum();
    let mut found = Vec::new();
    if unanswered > 0 {
        found.push(format!("{unanswered} arrivals got no answer"));
    }
    let late = client.late.p99_ms;
    if late > LATE_P99_MAX_MS {
        found.push(format!(
            "the client began {late:.0} ms late (p99), and that is part of the latencies"
        ));
    }
    if let Some(others) = others.filter(|others| *others > OTHERS_CPUS_MAX) {
        found.push(format!("others kept {others:.1} processors busy meanwhile"));
    }
    found
}

/// What the machine spent beyond server and client, by the second. None where the server's process
/// is not known.
fn others_cpus(samples: &[Sample], client_cpu_s: f64) -> Option<f64> {
    let (first, last) = (samples.first()?, samples.last()?);
    let machine = last.machine_cpu_s? - first.machine_cpu_s?;
    let server = last.usage?.cpu_s - first.usage?.cpu_s;
    let seconds = last.at_s - first.at_s;
    (seconds > 0.0).then(|| ((machine - server - client_cpu_s) / seconds).max(0.0))
}

impl PhaseReport {
    /// Arrivals that were sent and got no answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.timed_out + self.broken
    }

    fn new(schedule: &Schedule, ledger: &Ledger, index: usize) -> Self {
        let Phase {
            name,
            rate_per_s,
            seconds,
        } = schedule.phases[index];
        let mine = || ledger.outcomes.iter().filter(move |one| one.phase == index);
        let count = |ending| mine().filter(|one| one.ending == ending).count();
        let of = |is: fn(Ending) -> bool| mine().filter(move |one| is(one.ending));
        let latency = |is| Latency::of(of(is).map(|one| one.took));
        let (mut statuses, mut codes) = (BTreeMap::new(), BTreeMap::new());
        for one in mine() {
            if let Ending::Answered { status, code, .. } = one.ending {
                *statuses.entry(status).or_default() += 1;
                if let Some(code) = code {
                    *codes.entry(ledger.code(code).to_owned()).or_default() += 1;
                }
            }
        }
        let admitted = latency(Ending::admitted);
        let begin = Duration::from_secs_f64(schedule.begin_of(index));
        let last = of(Ending::admitted).map(|one| one.due + one.took).max();
        let lasted = last.map_or(seconds, |last| {
            last.saturating_sub(begin).as_secs_f64().max(seconds)
        });
        let arrivals = mine().count();
        Self {
            name,
            seconds,
            rate_per_s,
            offered_per_s: arrivals as f64 / seconds,
            sustained_per_s: admitted.count as f64 / lasted,
            arrivals,
            dropped: count(Ending::Dropped),
            timed_out: count(Ending::TimedOut),
            broken: count(Ending::Broken),
            admitted,
            refused: latency(Ending::refused),
            refused_otherwise: of(Ending::refused).filter(|one| !one.ending.shed()).count(),
            statuses,
            codes,
        }
    }
}

fn timeline(schedule: &Schedule, ledger: &Ledger, samples: &[Sample]) -> Vec<Second> {
    let last = ledger.outcomes.iter().map(|one| one.due + one.took).max();
    let length = last
        .unwrap_or_default()
        .as_secs_f64()
        .max(schedule.seconds());
    let mut rows: Vec<_> = (0..length.ceil() as usize)
        .map(|second| Second {
            second,
            ..Second::default()
        })
        .collect();
    let mut latencies = vec![Vec::new(); rows.len()];
    for Outcome {
        due, took, ending, ..
    } in &ledger.outcomes
    {
        let second = due.as_secs() as usize;
        let Some(row) = rows.get_mut(second) else {
            continue;
        };
        row.arrivals += 1;
        match ending {
            ending if ending.admitted() => {
                row.admitted += 1;
                latencies[second].push(*took);
                let end = (*due + *took).as_secs() as usize;
                if let Some(row) = rows.get_mut(end) {
                    row.bundles += 1;
                }
            }
            Ending::Answered { status: 503, .. } => row.answered_503 += 1,
            _ => row.other += 1,
        }
    }
    for (row, latencies) in rows.iter_mut().zip(latencies) {
        let latency = Latency::of(latencies.into_iter());
        (row.p50_ms, row.p99_ms) = (latency.p50_ms, latency.p99_ms);
    }
    for pair in samples.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let Some(row) = rows.get_mut((after.at_s.ceil() as usize).saturating_sub(1)) else {
            continue;
        };
        row.rss_mib = after.usage.map(|usage| usage.rss_mib);
        row.queue = after.queue;
        let cpu = after.usage.zip(before.usage);
        row.cpus = cpu.map(|(after_u, before_u)| {
            (after_u.cpu_s - before_u.cpu_s) / (after.at_s - before.at_s)
        });
    }
    rows
}

impl ServerReport {
    fn new(driven: &Driven) -> Self {
        let usages = || driven.samples.iter().filter_map(|sample| sample.usage);
        let rss = |usage: Usage| usage.rss_mib;
        let cpu_s = usages().next().zip(usages().next_back());
        let cpu_s = cpu_s.map(|(first, last)| last.cpu_s - first.cpu_s);
        let bundles = driven.ledger.outcomes.iter();
        let bundles = bundles.filter(|one| one.ending.admitted()).count();
        Self {
            rss_before_mib: usages().next().map(rss),
            rss_after_mib: usages().next_back().map(rss),
            rss_most_mib: usages().map(rss).reduce(f64::max),
            cpu_s,
            cpu_us_per_bundle: cpu_s
                .filter(|_| bundles > 0)
                .map(|cpu_s| cpu_s * 1e6 / bundles as f64),
            cpu_s_by_thread: driven.server_threads.clone(),
        }
    }
}

impl ClientReport {
    fn new(driven: &Driven) -> Self {
        let outcomes = &driven.ledger.outcomes;
        Self {
            cpu_s: driven.client_cpu_s,
            cpu_us_per_arrival: driven.client_cpu_s * 1e6 / outcomes.len().max(1) as f64,
            late: Latency::of(outcomes.iter().map(|one| one.late)),
            connections_most: driven.connections_most,
            connections_opened: driven.connections_opened,
            checked: driven.ledger.checked,
            misshapen: driven.ledger.misshapen,
            first_trouble: driven.ledger.first_trouble.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Spacing;

    const MS: Duration = Duration::from_millis(1);

    fn driven(schedule: &Schedule, end: impl Fn(usize) -> (Ending, Duration)) -> Driven {
        let mut ledger = Ledger::default();
        ledger.number("busy".into());
        for (index, arrival) in schedule.arrivals.iter().enumerate() {
            let (ending, took) = end(index);
            ledger.outcomes.push(Outcome {
                phase: arrival.phase,
                due: arrival.due,
                late: Duration::ZERO,
                took,
                ending,
            });
        }
        Driven {
            ledger,
            samples: Vec::new(),
            connections_most: 1,
            connections_opened: 1,
            client_cpu_s: 0.0,
            server_threads: BTreeMap::new(),
        }
    }

    fn answered(status: u16) -> Ending {
        Ending::Answered {
            status,
            code: (status == 503).then_some(0),
            retry_after: status == 503,
        }
    }

    fn schedule(rate_per_s: f64) -> Schedule {
        let phase = |name, seconds| Phase {
            name,
            rate_per_s,
            seconds,
        };
        Schedule::new(
            vec![phase("warm-up", 1.0), phase("run", 2.0)],
            Spacing::Even,
        )
    }

    #[test]
    fn admitted_and_refused_are_counted_apart_and_the_warm_up_is_left_out() {
        let schedule = schedule(100.0);
        // The warm-up is slow; then every fourth is refused, quickly.
        let driven = driven(&schedule, |index| match index {
            0..100 => (answered(201), 900 * MS),
            _ if index % 4 == 0 => (answered(503), MS),
            _ => (answered(201), 20 * MS),
        });
        let report = RunReport::new(&schedule, &driven, 1);
        assert!(report.valid, "{:?}", report.invalid_because);
        let [run] = &report.phases[..] else {
            panic!("one phase is measured");
        };
        assert_eq!((run.arrivals, run.admitted.count), (200, 150));
        assert_eq!((run.refused.count, run.refused_otherwise), (50, 0));
        assert_eq!((run.admitted.max_ms, run.refused.max_ms), (20.0, 1.0));
        assert_eq!(run.codes["busy"], 50);
        assert!((run.offered_per_s - 100.0).abs() < 1e-9);
        assert!((run.sustained_per_s - 75.0).abs() < 1.0);
    }

    #[test]
    fn bundles_count_in_the_second_they_arrive_and_latency_where_it_was_due() {
        let schedule = schedule(10.0);
        let driven = driven(&schedule, |_| (answered(201), 1500 * MS));
        let rows = RunReport::new(&schedule, &driven, 1).timeline;
        let column = |of: fn(&Second) -> usize| rows.iter().map(of).collect::<Vec<_>>();
        assert_eq!(column(|row| row.arrivals), [10, 10, 10, 0, 0]);
        assert_eq!(column(|row| row.bundles), [0, 5, 10, 10, 5]);
        assert_eq!(rows[0].p99_ms, 1500.0);
        assert_eq!(rows[3].p99_ms, 0.0);
    }

    #[test]
    fn what_lags_behind_is_not_called_sustained() {
        let schedule = schedule(100.0);
        // Each later than the one before: as if 50 a second were served.
        let driven = driven(&schedule, |index| (answered(201), 10 * MS * index as u32));
        let run = RunReport::new(&schedule, &driven, 0).phases.pop();
        let sustained = run.map(|run| run.sustained_per_s).unwrap_or_default();
        // 200 bundles, the last of them 4.97 s after the phase began.
        assert!((sustained - 200.0 / 4.98).abs() < 0.2, "{sustained}");
    }

    #[test]
    fn a_dropped_arrival_makes_a_run_invalid_an_unanswered_one_is_the_servers() {
        let schedule = schedule(100.0);
        for ending in [Ending::Dropped, Ending::TimedOut, Ending::Broken] {
            let driven = driven(&schedule, |index| match index {
                150 => (ending, Duration::ZERO),
                _ => (answered(201), MS),
            });
            let report = RunReport::new(&schedule, &driven, 1);
            assert_eq!(report.valid, ending != Ending::Dropped);
            assert_eq!(report.invalid_because.len() + report.remarks.len(), 1);
            let unanswered = report.phases[0].unanswered();
            assert_eq!(unanswered, usize::from(ending != Ending::Dropped));
            assert_eq!(report.phases[0].admitted.count, 199);
        }
    }

    #[test]
    fn what_the_machine_spends_beyond_server_and_client_is_told() {
        let sample = |at_s, server_s, machine_s| Sample {
            at_s,
            usage: Some(Usage {
                rss_mib: 1.0,
                cpu_s: server_s,
            }),
            machine_cpu_s: Some(machine_s),
            queue: None,
        };
        let samples = [sample(0.0, 5.0, 100.0), sample(4.0, 8.0, 106.0)];
        let others = others_cpus(&samples, 1.0).unwrap_or_default();
        assert!((others - 0.5).abs() < 1e-9);
    }
}
