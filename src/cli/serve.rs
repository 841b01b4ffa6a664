//! `fob serve`: opens what there is, starts the engine and the listeners, and ends in order.

use std::io::{IsTerminal as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::socket::Socket;
use super::{Common, EXIT_HSM_STUCK, place};
use crate::clock::SystemClock;
use crate::config::{Config, IssuingToken};
use crate::engine::follow::Sweep;
use crate::engine::{Engine, Issuing, Parts};
use crate::hsm::{Custody, Token, Tokens, leave, parked_threads};
use crate::http::{ServeError, Server};
use crate::metrics::Exporter;

/// How often epochs are looked at and what is over is purged.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// How often it is looked whether keys have rules to follow.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// Left to others between two slices of that.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked whether the HSM has let go of its threads.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// How long the last threads may take to let go of the engine at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
const CLOSE_STEP: Duration = Duration::from_millis(5);

#[derive(Args)]
pub(super) struct ServeArgs {
    /// Where to listen, instead of [server] listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

pub(super) fn run(common: &Common, args: ServeArgs) -> anyhow::Result<()> {
    let mut config = place::configuration(common)?;
    config.listen = args.listen.unwrap_or(config.listen);
    log(&config)?;
    check_exposure(&config)?;
    let _lock = place::lock(&config.dir)?;
    let listener =
        TcpListener::bind(config.listen).map_err(|error| ServeError::Bind(config.listen, error))?;
    let bound = listener.local_addr()?;
    // First, so that the first trials of the tokens are counted.
    let exporter = Exporter::install()?;
    let (engine, tokens) = open(&config, bound)?;
    let engine = Arc::new(engine);
    let server = Server::start(listener, Arc::clone(&engine), exporter, &config.server)?;
    let system = actix_web::rt::System::new();
    let parts = (Arc::clone(&engine), Arc::clone(&tokens) as Arc<dyn Custody>);
    let ended = system.block_on(serve(common, &config, bound, parts, server));
    drop(system);
    close(engine, &tokens);
    ended
}

/// Closes the tokens before the process ends. A worker that is still ending may be the last to
/// hold the engine, or a token; were it to close the token's sessions while the process runs its
/// exit handlers, the module would find its own library taken down under it.
pub(super) fn close(engine: Arc<Engine>, tokens: &Arc<Tokens>) {
    let mut engine = Some(engine);
    let patience = CLOSE_WITHIN.as_millis() / CLOSE_STEP.as_millis();
    for _ in 0..patience {
        match engine.take().map(Arc::try_unwrap) {
            Some(Err(shared)) => engine = Some(shared),
            Some(Ok(alone)) => drop(alone),
            None if Arc::strong_count(tokens) == 1 && !tokens.shared() => return,
            None => {}
        }
        std::thread::sleep(CLOSE_STEP);
    }
    tracing::warn!("something still holds the engine; the tokens are left open");
    std::mem::forget(engine);
    std::mem::forget(Arc::clone(tokens));
}

/// Opens store, tokens and keys, and starts the engine.
pub(super) fn open(config: &Config, bound: SocketAddr) -> anyhow::Result<(Engine, Arc<Tokens>)> {
    let store = place::store(config)?;
    let code_set_key = place::code_set_key(config)?;
    let tokens = place::issuing_tokens(config)?;
    let custody = Arc::new(place::custody(config, &tokens));
    let parts = Parts {
        store,
        code_set_key,
        tokens: stations(config, tokens),
        clock: Arc::new(SystemClock),
        settings: config.engine_settings(bound),
    };
    let hook = place::hook(config)?;
    let engine = Engine::start(parts)?;
    if let Some(hook) = hook {
        engine.set_hook(hook);
    }
    place::adopt_root(config, engine.book())?;
    place::follow_root(config, engine.book())?;
    engine.try_tokens().map_err(|why| anyhow::anyhow!(why))?;
    Ok((engine, custody))
}

/// Every token as the engine signs with it.
fn stations(config: &Config, tokens: Vec<Arc<Token>>) -> Vec<Issuing> {
    let alone = tokens.len() == 1;
    let station = |(one, signer): (&IssuingToken, Arc<Token>)| Issuing {
        name: one.config.label.clone(),
        serial: one.epochs_of().map(Into::into),
        alone,
        signer,
    };
    config.hsm.tokens.iter().zip(tokens).map(station).collect()
}

async fn serve(
    common: &Common,
    config: &Config,
    bound: SocketAddr,
    (engine, custody): (Arc<Engine>, Arc<dyn Custody>),
    server: Server,
) -> anyhow::Result<()> {
    let socket = Socket::bind(&config.dir)?;
    let handle = server.handle();
    let public_url = engine.settings().public_url.clone();
    // Whoever reads that it serves may ask it to end.
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    announce(common, &config.address(bound), &public_url)?;
    tracing::info!(%bound, public_url, "serving");
    let operators = (Arc::clone(&engine), Arc::clone(&custody));
    let desk = actix_web::rt::spawn(async move { socket.serve(operators.0, operators.1).await });
    let keeper = actix_web::rt::spawn(keep(Arc::clone(&engine), custody));
    let follower = actix_web::rt::spawn(follow(Arc::clone(&engine)));
    let watch = actix_web::rt::spawn(watch(Arc::clone(&engine), config.hsm.stuck_exit));
    let stopping = Arc::clone(&engine);
    actix_web::rt::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("shutting down: nothing new, what is under way is finished");
        // New requests are refused from here on; those let in are answered before the
        // listeners close.
        stopping.drain();
        let finish = tokio::task::spawn_blocking(move || stopping.shutdown());
        if let Err(error) = finish.await {
            tracing::error!(%error, "the engine did not end well");
        }
        handle.stop(true).await;
    });
    let ended = server.run().await;
    desk.abort();
    keeper.abort();
    follower.abort();
    watch.abort();
    engine.shutdown();
    tracing::info!("ended");
    ended.map_err(Into::into)
}

/// Says where it serves, for people and for scripts that wait for it.
fn announce(common: &Common, address: &str, public_url: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    if common.json {
        writeln!(
            out,
            "{}",
            serde_json::json!({ "listening": address, "public_url": public_url })
        )?;
    } else if address == public_url {
        writeln!(out, "fob serves on {address}")?;
    } else {
        writeln!(out, "fob serves on {address} as {public_url}")?;
    }
    out.flush()
}

/// Leaves once every thread has been inside an overdue call for `stuck_exit`: no call of theirs
/// can be taken back, and a new process begins with new threads.
async fn watch(engine: Arc<Engine>, stuck_exit: Duration) {
    let mut since = None;
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        if !engine.hsm_stuck() {
            since = None;
            continue;
        }
        let now = engine.clock().monotonic();
        let stuck = now.saturating_sub(*since.get_or_insert(now));
        if stuck >= stuck_exit {
            let (threads, code) = (parked_threads(), EXIT_HSM_STUCK);
            tracing::error!(
                threads,
                code,
                "every thread is inside a call into the HSM that does not return; leaving, to be \
                 started anew"
            );
            // What was answered is durable, and whoever waits is told so by their connection.
            leave(code);
        }
    }
}

async fn keep(engine: Arc<Engine>, custody: Arc<dyn Custody>) {
    loop {
        let wait = match engine.keep(&custody).await {
            // There may be more: go on soon, not at once.
            Ok(1..) => Duration::from_millis(200),
            Ok(0) => until_next_change(&engine),
            Err(refusal) => {
                tracing::debug!(%refusal, "housekeeping waits");
                KEEP_EVERY
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Has keys follow their fleets' rules.
async fn follow(engine: Arc<Engine>) {
    let mut sweep = Sweep::default();
    loop {
        let wait = match engine.follow_rules(&mut sweep).await {
            Ok(true) => FOLLOW_PAUSE,
            Ok(false) => FOLLOW_EVERY,
            Err(failure) => {
                tracing::debug!(%failure, "keys wait to follow the rules");
                FOLLOW_EVERY
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// How long there is nothing to do: an epoch that is due is not kept waiting.
fn until_next_change(engine: &Engine) -> Duration {
    let now = engine.clock().unix();
    let wait_s = engine.next_change().map(|at| at.saturating_sub(now));
    wait_s.map_or(KEEP_EVERY, |s| Duration::from_secs(s).min(KEEP_EVERY))
}

/// Credentials and keys do not cross a network in the clear.
fn check_exposure(config: &Config) -> anyhow::Result<()> {
    let open = !config.listen.ip().is_loopback();
    if open && config.server.tls.is_none() && !config.behind_proxy {
        bail!(
            "{} is not loopback and TLS is not set up: set [server] tls_certificates and tls_key, \
             or behind_proxy = true where a proxy ends TLS",
            config.listen
        );
    }
    Ok(())
}

/// Sets up the log. However much is asked for, other crates say no more than `info`: at `debug`
/// some of them print what clients send, and that may be a secret.
fn log(config: &Config) -> anyhow::Result<()> {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    use tracing_subscriber::{EnvFilter, Layer as _, Registry, filter, fmt};
    let asked = EnvFilter::try_new(&config.log_filter).context("[log] filter")?;
    let ours = filter::filter_fn(|line| {
        *line.level() <= tracing::Level::INFO || line.target().starts_with("fob")
    });
    let lines = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let lines = if config.log_json {
        lines.json().boxed()
    } else {
        lines.boxed()
    };
    let set = Registry::default()
        .with(lines.with_filter(asked).with_filter(ours))
        .try_init();
    set.map_err(|error| anyhow::anyhow!("the log: {error}"))
}
