//! Where calls may go: names and ports that the configuration lists, and of what these names lead
//! to no address that only this machine or its network should reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::Uri;

use super::HookError;
use crate::domain::rules::Range;

/// A host and port that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    host: String,
    port: u16,
}

/// Whom a call goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    pub(super) path: String,
}

impl Allowed {
    /// `checks.example.com:443`, or `[2001:db8::1]:443`. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let host = match inner {
            Some(inner) => inner.parse::<Ipv6Addr>().ok()?.to_string(),
            None => host.to_ascii_lowercase(),
        };
        let name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
        let fits = !host.is_empty() && (inner.is_some() || host.bytes().all(name));
        fits.then_some(Self { host, port })
    }

    pub(super) fn is(&self, target: &Target) -> bool {
        self.host == target.host && self.port == target.port
    }
}

impl Target {
    /// Reads an address: `https://`, a host, a port or 443, and a path; no more. `http://` is one of
    /// this machine, where that is allowed.
    pub(super) fn parse(url: &str, plain_loopback: bool) -> Result<Self, HookError> {
        let refuse = |why: &str| HookError::Address(format!("{url:?} {why}"));
        let uri: Uri = url.parse().map_err(|_| refuse("is no address"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(refuse("does not begin with https:// and a host"));
        };
        if authority.as_str().contains('@') || url.contains('#') {
            return Err(refuse("has a user or a fragment in it"));
        }
        let host = authority.host().trim_matches(['[', ']']);
        // An address may be written in several ways; a list of names must not be passed by it.
        let host = match host.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => host.to_ascii_lowercase(),
        };
        let tls = match scheme {
            "https" => true,
            "http" if plain_loopback => {
                let here = host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
                if !here {
                    return Err(refuse("is not of this machine, and not https://"));
                }
                false
            }
            _ => return Err(refuse("does not begin with https://")),
        };
        let path = uri.path_and_query().map_or("/", |it| it.as_str());
        Ok(Self {
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: path.into(),
            host,
            tls,
        })
    }

    /// Host and port, as they are listed.
    pub fn authority(&self) -> String {
        match self.host.parse::<Ipv6Addr>() {
            Ok(host) => format!("[{host}]:{}", self.port),
            Err(_) => format!("{}:{}", self.host, self.port),
        }
    }

    /// What its name leads to. An address that is listed itself may be any; a name must not lead
    /// anywhere that is out of bounds, and all it leads to are looked at: whoever answers for names
    /// does not choose whom this machine calls.
    pub(super) async fn resolve(&self, allowed: &[Range]) -> Result<Vec<SocketAddr>, HookError> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found: Vec<_> = found
            .map_err(|why| HookError::Unreached(format!("{}: {why}", self.host)))?
            .collect();
        check(&found, allowed)
            .map_err(|why| HookError::Address(format!("{}: {why}", self.host)))?;
        Ok(found)
    }
}

/// Whether all of these addresses are within bounds, and there are some.
fn check(found: &[SocketAddr], allowed: &[Range]) -> Result<(), String> {
    let may = |address: IpAddr| {
        !is_out_of_bounds(address) || allowed.iter().any(|range| range.contains(address))
    };
    match found.iter().find(|one| !may(one.ip())) {
        Some(out) => Err(format!(
            "it leads to {}, where no call goes ([hook] allow_addresses lets it)",
            out.ip()
        )),
        None if found.is_empty() => Err("it leads nowhere".into()),
        None => Ok(()),
    }
}

/// Whether an address is this machine's, its link's, one where clouds hand out their secrets, or no
/// single machine's at all.
fn is_out_of_bounds(address: IpAddr) -> bool {
    /// Where machines of clouds are told who they are, beside link-local addresses.
    const METADATA_V4: [Ipv4Addr; 2] = [
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
    ];
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    match address.to_canonical() {
        IpAddr::V4(it) => {
            it.is_loopback()
                || it.is_link_local()
                || it.is_multicast()
                || it.is_broadcast()
                || it.octets()[0] == 0
                || METADATA_V4.contains(&it)
        }
        IpAddr::V6(it) => {
            let first = it.segments()[0];
            // Of the forms that carry an address of IPv4, none is asked for by name.
            let carries_v4 = it.to_ipv4().is_some() || first == 0x2002 || first == 0x64;
            it.is_loopback()
                || it.is_unspecified()
                || it.is_multicast()
                || first & 0xffc0 == 0xfe80
                || carries_v4
                || it == METADATA_V6
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Option<Target> {
        Target::parse(url, false).ok()
    }

    #[test]
    fn whom_to_ask_is_listed_letter_by_letter() {
        let allowed = Allowed::parse("Checks.example.com:443").expect("a host");
        for (url, expected) in [
            ("https://checks.example.com/fob", true),
            ("https://CHECKS.example.com:443/fob?a=b", true),
            ("https://checks.example.com:8443/fob", false),
            ("https://checks.example.com./fob", false),
            ("https://example.com/fob", false),
            ("https://evil.checks.example.com/fob", false),
        ] {
            let target = target(url).expect(url);
            assert_eq!(allowed.is(&target), expected, "{url}");
        }
        let v6 = Allowed::parse("[2001:DB8:0::1]:8443").expect("a host");
        assert!(v6.is(&target("https://[2001:db8::1]:8443").expect("an address")));
        for bad in [
            "", "h", "h:", "h:0", "h:70000", ":443", "a b:1", "u@h:1", "[h]:1", "::1:1",
        ] {
            assert_eq!(Allowed::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_https_is_an_address_and_nothing_hides_in_it() {
        for bad in [
            "",
            "checks.example.com",
            "/fob",
            "http://checks.example.com/",
            "http://127.0.0.1/",
            "file:///etc/passwd",
            "ftp://h/",
            "https://user@h/",
            "https://user:word@h/",
            "https://h/#f",
            "https:///fob",
        ] {
            assert_eq!(target(bad), None, "{bad}");
        }
        let plain = |url| Target::parse(url, true).is_ok();
        assert!(plain("http://127.0.0.1:9/") && plain("http://[::1]:9/"));
        assert!(!plain("http://localhost:9/") && !plain("http://10.0.0.1/"));
    }

    #[test]
    fn no_name_leads_into_this_machine_or_its_network_services() {
        for out in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "febf:ffff::1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            let address = out.parse().expect(out);
            assert!(is_out_of_bounds(address), "{out}");
            let found = [SocketAddr::new(address, 1)];
            assert!(check(&found, &[]).is_err());
            let range = Range::parse(&address.to_canonical().to_string()).expect("a range");
            assert!(check(&found, &[range]).is_ok(), "{out} is let");
        }
        for within in [
            "192.0.2.1",
            "10.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "2001:db8::1",
            "fd00:ec2::253",
            "fec0::1",
        ] {
            assert!(!is_out_of_bounds(within.parse().expect(within)), "{within}");
        }
        // One bad address among good ones is enough.
        let at = |text: &str| SocketAddr::new(text.parse().expect("an address"), 1);
        let mixed = [at("192.0.2.1"), at("127.0.0.1")];
        assert!(check(&mixed, &[]).is_err() && check(&[], &[]).is_err());
        assert_eq!(check(&mixed[..1], &[]), Ok(()));
    }
}
