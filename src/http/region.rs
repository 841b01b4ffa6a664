//! Regions in JSON: degrees outside, ten-millionths of a degree inside.

use fob_verify::region::{Circle, Polygon, Position, Region};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::Refusal;
use crate::domain::json::optional_object;

/// A circle on the ground.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CircleArg {
    /// Latitude of its centre in degrees.
    lat: f64,
    /// Longitude of its centre in degrees.
    lon: f64,
    /// Its radius in metres.
    radius_m: u32,
}

/// Where keys may be used: one of the two.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RegionArg {
    /// A circle.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_object"
    )]
    circle: Option<CircleArg>,
    /// 3 to 16 corners, each latitude and longitude in degrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    polygon: Option<Vec<[f64; 2]>>,
}

impl RegionArg {
    /// The region as the format has it.
    pub(super) fn check(&self) -> Result<Region, Refusal> {
        let refuse = |why: String| Refusal::malformed("region", why);
        match (&self.circle, &self.polygon) {
            (Some(circle), None) => Circle::new(position(circle.lat, circle.lon)?, circle.radius_m)
                .map(Region::Circle)
                .map_err(|why| refuse(why.to_string())),
            (None, Some(corners)) => {
                let corners = corners
                    .iter()
                    .map(|[lat, lon]| position(*lat, *lon))
                    .collect::<Result<Vec<_>, _>>()?;
                Polygon::new(&corners)
                    .map(Region::Polygon)
                    .map_err(|why| refuse(why.to_string()))
            }
            _ => Err(refuse("a region is either a circle or a polygon".into())),
        }
    }
}

impl From<&Region> for RegionArg {
    fn from(region: &Region) -> Self {
        let degrees = |at: Position| [f64::from(at.lat_e7()) / 1e7, f64::from(at.lon_e7()) / 1e7];
        match region {
            Region::Circle(circle) => {
                let [lat, lon] = degrees(circle.centre());
                let circle = CircleArg {
                    lat,
                    lon,
                    radius_m: circle.radius_m(),
                };
                Self {
                    circle: Some(circle),
                    polygon: None,
                }
            }
            Region::Polygon(polygon) => {
                let corners = polygon
                    .corners()
                    .iter()
                    .map(|corner| degrees(*corner))
                    .collect();
                Self {
                    circle: None,
                    polygon: Some(corners),
                }
            }
        }
    }
}

fn position(lat: f64, lon: f64) -> Result<Position, Refusal> {
    let e7 = |degrees: f64| {
        let scaled = (degrees * 1e7).round();
        // The bounds make the conversion exact.
        (scaled.abs() <= 1.8e9).then_some(scaled as i32)
    };
    e7(lat)
        .zip(e7(lon))
        .and_then(|(lat, lon)| Position::new(lat, lon).ok())
        .ok_or_else(|| {
            Refusal::malformed(
                "region",
                "latitude is -90 to 90, longitude -180 to 180 degrees",
            )
        })
}
