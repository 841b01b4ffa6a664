//! Ranges of addresses, in CIDR notation (RFC 4632 §3.1, RFC 4291 §2.3).

use core::net::IpAddr;

use crate::domain::refusal::Refusal;

/// The most ranges one rule may name.
const RANGES_MAX: usize = 256;

/// Addresses that have their first bits in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: IpAddr,
    prefix: u8,
}

impl Range {
    /// `10.0.0.0/8` or `2001:db8::/32`; an address by itself is a range of one. `None` where it is
    /// none, or has bits beyond its prefix.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().ok()?;
        let longest = if first.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
            Some(_) => return None,
        };
        let range = Self { first, prefix };
        (prefix <= longest && range.beyond(first) == Some(0)).then_some(range)
    }

    /// Whether an address is one of them. One of IPv4 that comes in the clothes of IPv6 is one of
    /// IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.beyond(address)
            .is_some_and(|rest| bits(address) - rest == bits(self.first))
    }

    /// The bits of an address behind the prefix; `None` for one of the other family.
    fn beyond(&self, address: IpAddr) -> Option<u128> {
        let len: u32 = match (self.first, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) => 32,
            (IpAddr::V6(_), IpAddr::V6(_)) => 128,
            _ => return None,
        };
        let free = len.checked_sub(self.prefix.into())?;
        let mask = 1_u128.checked_shl(free).map_or(u128::MAX, |one| one - 1);
        Some(bits(address) & mask)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Reads a rule's ranges.
///
/// # Errors
/// `malformed`, naming the one at fault as a part of `field`.
pub(super) fn check(field: &str, all: &[String]) -> Result<Box<[Range]>, Refusal> {
    if all.len() > RANGES_MAX {
        return Err(Refusal::malformed(field.to_owned(), "at most 256 ranges"));
    }
    let read = |(at, text): (usize, &String)| {
        Range::parse(text).ok_or_else(|| {
            Refusal::malformed(
                format!("{field}[{at}]"),
                "a range is an address and the bits that count, as in 10.0.0.0/8 or \
                 2001:db8::/32, with no bit set beyond them",
            )
        })
    };
    all.iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, address: &str) -> bool {
        let range = Range::parse(range).expect("a range");
        range.contains(address.parse().expect("an address"))
    }

    #[test]
    fn ranges_end_where_they_say() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.0.0.0/8", "10.0.0.0", "9.255.255.255"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.7/32", "::ffff:192.0.2.7", "::192.0.2.7"),
            ("0.0.0.0/0", "255.255.255.255", "2001:db8::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("::/0", "::1", "::ffff:10.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
        ] {
            assert!(contains(range, inside), "{inside} in {range}");
            assert!(!contains(range, outside), "{outside} in {range}");
        }
    }

    #[test]
    fn a_rule_names_so_many_ranges_and_no_more() {
        let all = vec!["10.0.0.0/8".to_owned(); 257];
        assert_eq!(check("inside", &all[1..]).map(|it| it.len()), Ok(256));
        let refusal = check("inside", &all).expect_err("one too many");
        assert_eq!(refusal.field.as_deref(), Some("inside"));
    }

    #[test]
    fn what_is_no_range_is_none() {
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "10.0.0.1/8",
            "10.0.0/8",
            "2001:db8::/129",
            "2001:db8::1/64",
            "localhost/8",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(Range::parse(bad), None, "{bad}");
        }
    }
}
