//! Sines and distances on a sphere in integers, for cores without a floating
//! point unit and builds without a maths library.
//!
//! Numbers are fixed point with [`BITS`] fraction bits in an `i128`; nothing
//! here exceeds 2^125, whatever coordinates it is given.

/// Fraction bits.
const BITS: u32 = 60;

/// One.
const ONE: i128 = 1 << BITS;

/// π, rounded.
const PI: i128 = 3_622_009_729_038_561_421;

/// Half a turn in units of 10⁻⁷ degrees.
const HALF_TURN_E7: i128 = 1_800_000_000;

/// The mean radius of the earth, 6 371 008.8 m, in decimetres.
const EARTH_RADIUS_DM: i128 = 63_710_088;

/// The square of the chord between two points of the unit sphere, given in
/// 10⁻⁷ degrees, with 80 fraction bits.
pub(crate) fn chord_squared(a: (i32, i32), b: (i32, i32)) -> i128 {
    let (a, b) = (unit_vector(a), unit_vector(b));
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b) >> 20)
        .map(|difference| difference * difference)
        .sum()
}

/// The square of the chord under an arc of `arc_m` metres on the earth, with
/// 80 fraction bits. Right up to a quarter of the circumference.
pub(crate) fn chord_squared_of_arc(arc_m: u32) -> i128 {
    let half_angle = i128::from(arc_m) * ONE * 10 / (2 * EARTH_RADIUS_DM);
    let chord = (2 * sine(half_angle)) >> 20;
    chord * chord
}

fn unit_vector((lat_e7, lon_e7): (i32, i32)) -> [i128; 3] {
    let (sin_lat, cos_lat) = sine_cosine_e7(lat_e7.into());
    let (sin_lon, cos_lon) = sine_cosine_e7(lon_e7.into());
    [mul(cos_lat, cos_lon), mul(cos_lat, sin_lon), sin_lat]
}

/// Sine and cosine of an angle in 10⁻⁷ degrees, within two units of the last
/// of 60 bits. The angle is folded exactly into the first octant before it
/// becomes radians.
fn sine_cosine_e7(angle_e7: i128) -> (i128, i128) {
    let quarter = HALF_TURN_E7 / 2;
    let turn = angle_e7.rem_euclid(4 * quarter);
    let rest = turn % quarter;
    let (sin, cos) = if rest * 2 <= quarter {
        octant(rest)
    } else {
        let (sin, cos) = octant(quarter - rest);
        (cos, sin)
    };
    match turn / quarter {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

fn octant(angle_e7: i128) -> (i128, i128) {
    let radians = angle_e7 * PI / HALF_TURN_E7;
    (sine(radians), cosine(radians))
}

/// Taylor series for angles from 0 to π/4.
fn sine(angle: i128) -> i128 {
    series(angle, angle, 2)
}

fn cosine(angle: i128) -> i128 {
    series(ONE, angle, 1)
}

/// `first − first·x²/(n(n+1)) + …`: ten terms are exact to 60 bits here.
fn series(first: i128, angle: i128, n: i128) -> i128 {
    let square = mul(angle, angle);
    let (mut term, mut sum, mut n) = (first, first, n);
    for _ in 0..10 {
        term = -mul(term, square) / (n * (n + 1));
        sum += term;
        n += 2;
    }
    sum
}

fn mul(a: i128, b: i128) -> i128 {
    (a * b) >> BITS
}

#[cfg(test)]
mod tests {
    use super::{ONE, chord_squared, chord_squared_of_arc, sine_cosine_e7};

    #[test]
    fn sines_agree_with_floating_point() {
        for step in -720..=720i32 {
            let degrees = f64::from(step) * 0.25 + 1e-7;
            let (sin, cos) = sine_cosine_e7((degrees * 1e7).round() as i128);
            let expected = degrees.to_radians().sin_cos();
            assert!(
                (sin as f64 / ONE as f64 - expected.0).abs() < 1e-15,
                "{step}"
            );
            assert!(
                (cos as f64 / ONE as f64 - expected.1).abs() < 1e-15,
                "{step}"
            );
        }
    }

    #[test]
    fn a_degree_of_latitude_is_111195_metres_everywhere() {
        for lat in [-90, -45, 0, 52, 89] {
            let chord = chord_squared((lat * 10_000_000, 7), ((lat + 1) * 10_000_000, 7));
            assert!(chord_squared_of_arc(111_195) <= chord);
            assert!(chord < chord_squared_of_arc(111_196));
        }
    }

    #[test]
    fn the_extremes_do_not_overflow() {
        for a in [i32::MIN, -1, 0, i32::MAX] {
            for b in [i32::MIN, 1, i32::MAX] {
                assert!(chord_squared((a, b), (b, a)) >= 0);
            }
        }
        assert!(chord_squared_of_arc(10_000_000) > 0);
    }
}
