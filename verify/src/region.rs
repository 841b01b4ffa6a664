//! Regions: where a key works.
//!
//! A **circle** is measured on a sphere of the earth's mean radius
//! (6 371 008.8 m). Against the distance on the WGS 84 ellipsoid this is off
//! by at most 0.57 % of the radius; the integer arithmetic adds at most 1 cm.
//! It is right at the poles and across the antimeridian.
//!
//! A **polygon** has straight edges on the plain chart of latitude against
//! longitude; a parallel is a straight line on it. Every edge takes the
//! shorter way round the earth, so an edge from 179° to −179° is two degrees
//! long and crosses the antimeridian. Refused are edges of exactly 180° of
//! longitude, for which neither way is shorter, polygons around a pole and
//! polygons that span 360° or more. Where edges cross each other, the
//! even-odd rule says what is inside.
//!
//! The border belongs to the region, of circles as of polygons.

use crate::Refusal;
use crate::cbor::{Reader, Write};
use crate::geometry::{chord_squared, chord_squared_of_arc};

mod polygon;
pub use polygon::{CORNERS_MAX, CORNERS_MIN, Polygon};

/// The largest radius, in metres: a quarter of the earth's circumference.
pub const RADIUS_MAX_M: u32 = 10_000_000;

const LAT_MAX_E7: i32 = 900_000_000;
const LON_MAX_E7: i32 = 1_800_000_000;

/// A point on the earth in units of 10⁻⁷ degrees (11 mm or less), WGS 84.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    lat_e7: i32,
    lon_e7: i32,
}

impl Position {
    /// A position from −90° to 90° and from −180° to 180°, both ends
    /// included.
    ///
    /// # Errors
    /// [`Refusal::OutOfBounds`].
    pub fn new(lat_e7: i32, lon_e7: i32) -> Result<Self, Refusal> {
        let sound = (-LAT_MAX_E7..=LAT_MAX_E7).contains(&lat_e7)
            && (-LON_MAX_E7..=LON_MAX_E7).contains(&lon_e7);
        sound
            .then_some(Self { lat_e7, lon_e7 })
            .ok_or(Refusal::OutOfBounds)
    }

    /// Latitude in 10⁻⁷ degrees, north positive.
    #[must_use]
    pub const fn lat_e7(&self) -> i32 {
        self.lat_e7
    }

    /// Longitude in 10⁻⁷ degrees, east positive.
    #[must_use]
    pub const fn lon_e7(&self) -> i32 {
        self.lon_e7
    }

    fn write(&self, out: &mut impl Write) {
        out.int(self.lat_e7.into());
        out.int(self.lon_e7.into());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let lat_e7 = reader.int_within(-LAT_MAX_E7, LAT_MAX_E7)?;
        let lon_e7 = reader.int_within(-LON_MAX_E7, LON_MAX_E7)?;
        Self::new(lat_e7, lon_e7)
    }
}

/// A circle on the earth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Circle {
    centre: Position,
    radius_m: u32,
}

impl Circle {
    /// A circle of 1 m to [`RADIUS_MAX_M`].
    ///
    /// # Errors
    /// [`Refusal::OutOfBounds`].
    pub fn new(centre: Position, radius_m: u32) -> Result<Self, Refusal> {
        (1..=RADIUS_MAX_M)
            .contains(&radius_m)
            .then_some(Self { centre, radius_m })
            .ok_or(Refusal::OutOfBounds)
    }

    /// The centre.
    #[must_use]
    pub const fn centre(&self) -> Position {
        self.centre
    }

    /// The radius along the ground, in metres.
    #[must_use]
    pub const fn radius_m(&self) -> u32 {
        self.radius_m
    }

    /// Whether the position is inside or on the border.
    #[must_use]
    pub fn contains(&self, at: Position) -> bool {
        let centre = (self.centre.lat_e7, self.centre.lon_e7);
        chord_squared(centre, (at.lat_e7, at.lon_e7)) <= chord_squared_of_arc(self.radius_m)
    }
}

/// Where a key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// `[0, lat_e7, lon_e7, radius_m]`
    Circle(Circle),
    /// `[1, [[lat_e7, lon_e7], …]]`
    Polygon(Polygon),
}

impl Region {
    /// Whether the position is inside or on the border.
    #[must_use]
    pub fn contains(&self, at: Position) -> bool {
        match self {
            Self::Circle(circle) => circle.contains(at),
            Self::Polygon(polygon) => polygon.contains(at),
        }
    }

    pub(crate) fn write(&self, out: &mut impl Write) {
        match self {
            Self::Circle(circle) => {
                out.array(4);
                out.uint(0);
                circle.centre.write(out);
                out.uint(circle.radius_m.into());
            }
            Self::Polygon(polygon) => {
                out.array(2);
                out.uint(1);
                polygon.write(out);
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let items = reader.array(2, 4)?;
        match (reader.uint()?, items) {
            (0, 4) => {
                let centre = Position::read(reader)?;
                Circle::new(centre, reader.uint32()?).map(Self::Circle)
            }
            (1, 2) => Polygon::read(reader).map(Self::Polygon),
            (0 | 1, _) => Err(Refusal::WrongCount),
            _ => Err(Refusal::OutOfBounds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Circle, Position, RADIUS_MAX_M};

    fn at(lat: f64, lon: f64) -> Position {
        Position::new((lat * 1e7) as i32, (lon * 1e7) as i32).unwrap()
    }

    #[test]
    fn a_kilometre_around_the_brandenburg_gate() {
        let circle = Circle::new(at(52.516_272, 13.377_722), 1000).unwrap();
        assert!(circle.contains(at(52.516_272, 13.377_722)));
        assert!(
            circle.contains(at(52.518_623, 13.376_187)),
            "Reichstag, 281 m"
        );
        assert!(
            !circle.contains(at(52.520_803, 13.409_425)),
            "television tower, 2.2 km"
        );
    }

    #[test]
    fn circles_reach_over_the_antimeridian_and_the_poles() {
        let date_line = Circle::new(at(0.0, 179.999), 1000).unwrap();
        assert!(date_line.contains(at(0.0, -179.999)));
        assert!(!date_line.contains(at(0.0, -179.9)));
        let pole = Circle::new(at(89.999, 0.0), 1000).unwrap();
        assert!(pole.contains(at(89.999, 180.0)));
        assert!(!pole.contains(at(89.98, 180.0)));
    }

    #[test]
    fn a_metre_is_told_from_two() {
        let circle = Circle::new(at(40.0, -70.0), 1).unwrap();
        assert!(circle.contains(at(40.000_008_9, -70.0)));
        assert!(!circle.contains(at(40.000_009_2, -70.0)));
    }

    #[test]
    fn limits_hold() {
        assert!(Position::new(900_000_001, 0).is_err());
        assert!(Position::new(0, -1_800_000_001).is_err());
        assert!(Circle::new(at(0.0, 0.0), 0).is_err());
        assert!(Circle::new(at(0.0, 0.0), RADIUS_MAX_M + 1).is_err());
    }
}
