//! Polygons on the plain chart, exact in integers.

use super::{LON_MAX_E7, Position};
use crate::Refusal;
use crate::cbor::{Reader, Write};

/// The fewest corners of a polygon.
pub const CORNERS_MIN: usize = 3;

/// The most corners of a polygon.
pub const CORNERS_MAX: usize = 16;

const TURN_E7: i64 = 2 * LON_MAX_E7 as i64;

/// A polygon of [`CORNERS_MIN`] to [`CORNERS_MAX`] corners. The last corner
/// is joined to the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Polygon {
    corners: [Position; CORNERS_MAX],
    count: usize,
}

impl Polygon {
    /// The polygon of these corners.
    ///
    /// # Errors
    /// [`Refusal::WrongCount`] for too few or too many;
    /// [`Refusal::OutOfBounds`] for an edge of exactly 180° of longitude, a
    /// polygon around a pole or one that spans 360° or more.
    pub fn new(corners: &[Position]) -> Result<Self, Refusal> {
        let first = *corners.first().ok_or(Refusal::WrongCount)?;
        let mut all = [first; CORNERS_MAX];
        all.get_mut(..corners.len())
            .filter(|corners| corners.len() >= CORNERS_MIN)
            .ok_or(Refusal::WrongCount)?
            .copy_from_slice(corners);
        let polygon = Self {
            corners: all,
            count: corners.len(),
        };
        polygon.check_span()?;
        Ok(polygon)
    }

    /// The corners, in the order of the key.
    #[must_use]
    pub fn corners(&self) -> &[Position] {
        self.corners.get(..self.count).unwrap_or(&[])
    }

    /// Whether the position is inside or on an edge, by the even-odd rule.
    #[must_use]
    pub fn contains(&self, at: Position) -> bool {
        // On the chart unrolled from the first corner the polygon may reach
        // one turn to either side of where the position is written.
        [-TURN_E7, 0, TURN_E7].into_iter().any(|turn| {
            let x = i64::from(at.lon_e7).saturating_add(turn);
            self.contains_unrolled(x, at.lat_e7.into())
        })
    }

    /// Every edge, as `(x, y)` to `(x, y)`, with longitudes that run on past
    /// ±180° instead of jumping.
    fn edges(&self) -> impl Iterator<Item = ((i64, i64), (i64, i64))> {
        let corners = self.corners();
        let start = corners.first().map_or(0, |first| i64::from(first.lon_e7));
        let next = corners.iter().cycle().skip(1);
        corners.iter().zip(next).scan(start, |x, (from, to)| {
            let from_x = *x;
            *x = from_x.saturating_add(shorter_way(from.lon_e7, to.lon_e7));
            Some(((from_x, from.lat_e7.into()), (*x, to.lat_e7.into())))
        })
    }

    fn check_span(&self) -> Result<(), Refusal> {
        let start = self.corners().first().map_or(0, |c| i64::from(c.lon_e7));
        let (mut west, mut east, mut end) = (start, start, start);
        for ((from, _), (to, _)) in self.edges() {
            if from.abs_diff(to) == LON_MAX_E7.unsigned_abs().into() {
                return Err(Refusal::OutOfBounds);
            }
            west = west.min(to);
            east = east.max(to);
            end = to;
        }
        let closes = end == start;
        let fits = east.saturating_sub(west) < TURN_E7;
        if closes && fits {
            Ok(())
        } else {
            Err(Refusal::OutOfBounds)
        }
    }

    fn contains_unrolled(&self, x: i64, y: i64) -> bool {
        let mut inside = false;
        for ((ax, ay), (bx, by)) in self.edges() {
            let side =
                i128::from(bx - ax) * i128::from(y - ay) - i128::from(by - ay) * i128::from(x - ax);
            let between = |p: i64, a: i64, b: i64| p >= a.min(b) && p <= a.max(b);
            if side == 0 && between(x, ax, bx) && between(y, ay, by) {
                return true;
            }
            // The ray runs east; an edge counts for its lower end only.
            if (ay > y) != (by > y) && (side > 0) == (by > ay) {
                inside = !inside;
            }
        }
        inside
    }

    pub(super) fn write(&self, out: &mut impl Write) {
        out.array(self.count);
        for corner in self.corners() {
            out.array(2);
            corner.write(out);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let count = reader.array(CORNERS_MIN, CORNERS_MAX)?;
        let mut corners = [Position {
            lat_e7: 0,
            lon_e7: 0,
        }; CORNERS_MAX];
        for corner in corners.iter_mut().take(count) {
            reader.array(2, 2)?;
            *corner = Position::read(reader)?;
        }
        Self::new(corners.get(..count).unwrap_or(&[]))
    }
}

impl core::fmt::Debug for Polygon {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.corners()).finish()
    }
}

/// The difference of two longitudes, from −180° to 180°.
fn shorter_way(from: i32, to: i32) -> i64 {
    let half = TURN_E7 / 2;
    let east = (i64::from(to) - i64::from(from)).rem_euclid(TURN_E7);
    if east > half { east - TURN_E7 } else { east }
}

#[cfg(test)]
mod tests {
    use super::{CORNERS_MAX, Polygon, Position};
    use crate::Refusal;
    use std::vec::Vec;

    fn at(lat: i32, lon: i32) -> Position {
        Position::new(lat * 10_000_000, lon * 10_000_000).unwrap()
    }

    fn polygon(corners: &[(i32, i32)]) -> Result<Polygon, Refusal> {
        let corners: Vec<_> = corners.iter().map(|(lat, lon)| at(*lat, *lon)).collect();
        Polygon::new(&corners)
    }

    #[test]
    fn inside_outside_and_on_the_border() {
        let shape = polygon(&[(0, 0), (0, 10), (10, 10), (5, 5), (10, 0)]).unwrap();
        for inside in [
            (1, 1),
            (4, 5),
            (8, 1),
            (8, 9),
            (0, 0),
            (0, 5),
            (5, 5),
            (10, 10),
            (5, 10),
        ] {
            assert!(shape.contains(at(inside.0, inside.1)), "{inside:?}");
        }
        for outside in [(8, 5), (6, 5), (-1, 5), (5, 11), (5, -1), (11, 0), (10, 5)] {
            assert!(!shape.contains(at(outside.0, outside.1)), "{outside:?}");
        }
    }

    #[test]
    fn the_direction_of_the_corners_does_not_matter() {
        let one = polygon(&[(0, 0), (0, 10), (10, 0)]).unwrap();
        let other = polygon(&[(10, 0), (0, 10), (0, 0)]).unwrap();
        for lat in -2..12 {
            for lon in -2..12 {
                assert_eq!(one.contains(at(lat, lon)), other.contains(at(lat, lon)));
                let expected = lat >= 0 && lon >= 0 && lat + lon <= 10;
                assert_eq!(one.contains(at(lat, lon)), expected);
            }
        }
    }

    #[test]
    fn fiji_lies_on_both_sides_of_the_antimeridian() {
        for first in 0..4 {
            let mut corners = [(-21, 176), (-21, -178), (-15, -178), (-15, 176)];
            corners.rotate_left(first);
            let fiji = polygon(&corners).unwrap();
            for lon in [176, 179, 180, -180, -179, -178] {
                assert!(fiji.contains(at(-18, lon)), "{lon}");
            }
            for lon in [175, -177, 0, 90, -90] {
                assert!(!fiji.contains(at(-18, lon)), "{lon}");
            }
        }
    }

    #[test]
    fn polygons_without_a_clear_meaning_are_refused() {
        for corners in [
            &[(0, 0), (0, 180), (1, 90)][..],
            &[(80, 0), (80, 120), (80, -120)],
            &[
                (0, 0),
                (0, 100),
                (0, -160),
                (0, -60),
                (1, 40),
                (2, -60),
                (2, -160),
                (2, 100),
            ],
        ] {
            assert_eq!(polygon(corners), Err(Refusal::OutOfBounds));
        }
        assert_eq!(polygon(&[(0, 0), (1, 1)]), Err(Refusal::WrongCount));
        assert_eq!(
            polygon(&[(0, 0); CORNERS_MAX + 1]),
            Err(Refusal::WrongCount)
        );
    }
}
