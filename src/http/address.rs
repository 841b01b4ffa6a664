//! From where somebody asks, and how fast each address does: the one limit that comes before it is
//! known who asks.

use std::net::{IpAddr, Ipv6Addr};

use actix_web::HttpRequest;
use actix_web::dev::ServiceRequest;
use actix_web::http::header::HeaderMap;

use super::serve::Limits;
use crate::domain::Refusal;
use crate::domain::rules::Rate;
use crate::engine::Engine;
use crate::engine::meter::Meter;

/// Where a proxy says who asked it; the last entry is its own.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// What each address has asked lately.
pub(super) struct Addresses {
    meter: Option<Meter<IpAddr>>,
    forwarded: bool,
}

impl Addresses {
    /// As the configuration has it.
    pub(super) fn new(engine: &Engine, limits: &Limits) -> Self {
        let rate = Rate {
            count: limits.address_requests_per_s_max,
            seconds: 1,
        };
        Self {
            meter: (rate.count > 0)
                .then(|| engine.meter("address", rate))
                .flatten(),
            forwarded: limits.forwarded,
        }
    }

    /// Lets whoever sends this request ask once more.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn ask(&self, request: &ServiceRequest) -> Result<(), Refusal> {
        let Some(meter) = &self.meter else {
            return Ok(());
        };
        let peer = request.peer_addr().map(|peer| peer.ip());
        match self.address(peer, request.headers()) {
            Some(address) => meter.take(&network(address)),
            None => Ok(()),
        }
    }

    /// The whole address of whoever sends a request.
    pub(super) fn of(&self, request: &HttpRequest) -> Option<IpAddr> {
        let peer = request.peer_addr().map(|peer| peer.ip());
        self.address(peer, request.headers())
    }

    fn address(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let said = self.forwarded.then(|| {
            let value = headers.get_all(FORWARDED_FOR).last()?;
            last_entry(value.to_str().ok()?)
        });
        said.flatten().or(peer).map(|it| it.to_canonical())
    }
}

/// The entry a proxy has added itself; those before it are anybody's.
fn last_entry(value: &str) -> Option<IpAddr> {
    value.rsplit(',').next()?.trim().parse().ok()
}

/// Whoever has an IPv6 address has 2^64 of them: the first half says who it is.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_who_asks() {
        let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
        let same = |a: &str, b: &str| network(parse(a)) == network(parse(b));
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
        assert_eq!(last_entry("1.2.3.4, 10.0.0.9"), Some(parse("10.0.0.9")));
        assert_eq!(last_entry("10.0.0.9"), Some(parse("10.0.0.9")));
        assert_eq!(last_entry("1.2.3.4, somebody"), None);
    }
}
