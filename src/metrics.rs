//! Metrics: one recorder for the process, read in Prometheus' text format.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::engine::Engine;

/// Buckets of durations, in seconds.
const SECONDS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// Buckets of batch sizes, in bundles.
const BUNDLES: [f64; 8] = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

/// The process's metrics, to read.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
}

impl Exporter {
    /// Installs the recorder. Once in a process.
    ///
    /// # Errors
    /// Where one is installed already.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_bundles".into()), &BUNDLES)?
            .install_recorder()?;
        describe();
        Ok(Self { handle })
    }

    /// Takes the readings that nobody writes as they change.
    pub fn observe(&self, engine: &Engine) {
        let readiness = engine.readiness();
        let gauge = |up: bool| if up { 1.0 } else { 0.0 };
        metrics::gauge!("fob_queue_bundles").set(engine.queue_len() as f64);
        metrics::gauge!("fob_keys_waiting").set(engine.keys_waiting() as f64);
        metrics::gauge!("fob_hsm_up").set(gauge(readiness.hsm));
        metrics::gauge!("fob_store_up").set(gauge(readiness.store));
        let now = engine.clock().unix();
        let runway_s = engine.runway().saturating_sub(now);
        metrics::gauge!("fob_epoch_runway_seconds").set(runway_s as f64);
        metrics::gauge!("fob_epochs_low").set(gauge(readiness.epochs_low));
        for token in engine.tokens() {
            let name = token.name;
            metrics::gauge!("fob_hsm_token_up", "token" => name.clone()).set(gauge(token.up));
            metrics::gauge!("fob_hsm_token_rate", "token" => name.clone()).set(token.rate_per_s);
            metrics::gauge!("fob_hsm_token_waiting", "token" => name.clone())
                .set(token.waiting as f64);
            metrics::gauge!("fob_hsm_parked_threads", "token" => name)
                .set(token.parked.threads as f64);
        }
        metrics::gauge!("fob_authorizations").set(engine.book().authorizations_len() as f64);
    }

    /// Everything, as text.
    pub fn render(&self) -> String {
        self.handle.run_upkeep();
        self.handle.render()
    }
}

fn describe() {
    metrics::describe_counter!("fob_keys_issued_total", "Keys signed and durable.");
    metrics::describe_counter!(
        "fob_bundles_renewed_total",
        "Bundles of revoked epochs that were signed again."
    );
    metrics::describe_counter!("fob_hsm_signatures_total", "Signatures the HSM has made.");
    metrics::describe_counter!("fob_commits_total", "Transactions committed.");
    metrics::describe_counter!("fob_commit_failures_total", "Transactions that failed.");
    metrics::describe_counter!("fob_refusals_total", "Requests refused, by code.");
    metrics::describe_counter!("fob_orders_total", "Orders of batch calls, by outcome.");
    metrics::describe_gauge!("fob_batch_calls", "Batch calls open.");
    metrics::describe_histogram!("fob_batch_bundles", "Bundles in a batch.");
    metrics::describe_histogram!("fob_http_seconds", "Time to answer, by path.");
    metrics::describe_gauge!("fob_queue_bundles", "Redemptions waiting to be batched.");
    metrics::describe_gauge!(
        "fob_keys_waiting",
        "Keys waiting to be batched, those of orders included."
    );
    metrics::describe_gauge!("fob_hsm_up", "1 while a token signs.");
    metrics::describe_gauge!("fob_hsm_token_up", "1 while this token signs.");
    metrics::describe_gauge!("fob_hsm_token_rate", "Signatures a second, as measured.");
    metrics::describe_gauge!("fob_hsm_token_waiting", "Messages handed to this token.");
    metrics::describe_gauge!(
        "fob_hsm_parked_threads",
        "Threads inside a call that is overdue."
    );
    metrics::describe_counter!("fob_hsm_outages_total", "Times a token stopped to sign.");
    metrics::describe_gauge!("fob_store_up", "1 while the store commits.");
    metrics::describe_gauge!(
        "fob_epoch_runway_seconds",
        "How long epochs can go on as planned without the root."
    );
    metrics::describe_gauge!("fob_epochs_low", "1 while too few epochs are prepared.");
    metrics::describe_gauge!("fob_authorizations", "Authorizations held in memory.");
}
