//! What was answered under one `Idempotency-Key`, as it is remembered: floor 2.

use std::collections::HashMap;

use super::AnsweredOrder;
use crate::domain::BundleId;

/// Parts, each a table of its own: a table of a million orders is moved as a whole when it grows, and
/// nothing is committed meanwhile.
const PARTS: usize = 64;

/// What an order asked (its digest), and the bundle it was answered with.
pub(super) type Answer = ([u8; 16], BundleId);

/// Answers by the references of their orders.
#[derive(Default)]
pub(super) struct Answers(Vec<HashMap<[u8; 16], Answer>>);

impl Answers {
    /// What the order of that reference asked, and was answered with.
    pub(super) fn get(&self, reference: &[u8; 16]) -> Option<&Answer> {
        self.0.get(part(reference))?.get(reference)
    }

    /// Notes an order. Returns whether that is new.
    pub(super) fn note(&mut self, order: AnsweredOrder) -> bool {
        if self.0.is_empty() {
            self.0.resize_with(PARTS, HashMap::new);
        }
        let answer = (order.digest, order.bundle);
        let part = self.0.get_mut(part(&order.reference));
        part.is_some_and(|part| part.insert(order.reference, answer) != Some(answer))
    }
}

/// References are halves of hashes: any octet divides them evenly.
fn part(reference: &[u8; 16]) -> usize {
    usize::from(reference[0]) % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_found_by_its_reference_and_is_new_once() {
        let order = |reference, digest| AnsweredOrder {
            reference: [reference; 16],
            digest: [digest; 16],
            bundle: BundleId([reference; 16]),
        };
        let mut answers = Answers::default();
        assert_eq!(answers.get(&[1; 16]), None);
        for reference in 0..=255 {
            assert!(answers.note(order(reference, 1)));
            assert!(!answers.note(order(reference, 1)));
        }
        assert!(answers.note(order(7, 2)), "answered otherwise");
        for reference in 0..=255 {
            let digest = if reference == 7 { 2 } else { 1 };
            let found = Some(&([digest; 16], BundleId([reference; 16])));
            assert_eq!(answers.get(&[reference; 16]), found);
        }
    }
}
