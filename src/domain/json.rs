//! JSON as it is believed here: an object is an object, and no member comes twice. A reader that
//! lets a list pass for an object, or picks one of two members of the same name, may read
//! something else than the one before it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value read from an object and from nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// For `deserialize_with`: a field that is an object.
///
/// # Errors
/// The deserializer's.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|Object(value)| value)
}

/// For `deserialize_with`: a field that is an object, or null.
///
/// # Errors
/// The deserializer's.
pub fn optional_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(value)| value))
}

/// For `deserialize_with`: a list of objects.
///
/// # Errors
/// The deserializer's.
pub fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let all = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(all.into_iter().map(|Object(value)| value).collect())
}

/// For `deserialize_with`: the members of an object in their order, each name once.
///
/// # Errors
/// The deserializer's, and for a name that comes twice.
pub fn entries<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<(String, T)>, D::Error> {
    struct Entries<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
        type Value = Vec<(String, T)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut all: Self::Value = Vec::new();
            while let Some((name, value)) = members.next_entry::<String, T>()? {
                if all.iter().any(|(known, _)| *known == name) {
                    return Err(twice());
                }
                all.push((name, value));
            }
            Ok(all)
        }
    }

    deserializer.deserialize_map(Entries(PhantomData))
}

/// For `deserialize_with`: any value in which no object has a member twice.
///
/// # Errors
/// The deserializer's, and for a name that comes twice.
pub fn strict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Strict.deserialize(deserializer)
}

/// For `deserialize_with`: the same, or null.
///
/// # Errors
/// As [`strict`].
pub fn optional_strict<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Value>, D::Error> {
    strict(deserializer).map(|value| (!value.is_null()).then_some(value))
}

fn twice<E: Error>() -> E {
    E::custom("a member comes twice")
}

#[derive(Clone, Copy)]
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if all.insert(name, value).is_some() {
                return Err(twice());
            }
        }
        Ok(all.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Sample {
        #[serde(deserialize_with = "strict")]
        any: Value,
        #[serde(default, deserialize_with = "entries")]
        limits: Vec<(String, u32)>,
    }

    fn read(text: &str) -> Result<Sample, String> {
        let read: Result<Object<Sample>, _> = serde_json::from_str(text);
        read.map(|Object(sample)| sample)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_read_is_what_stands_there() {
        let sample = read(r#"{"any":{"a":[1,-2,0.5,true,null,"x"]},"limits":{"a":1,"b":2}}"#);
        let sample = sample.expect("well-formed");
        assert_eq!(
            sample.any,
            serde_json::json!({ "a": [1, -2, 0.5, true, null, "x"] })
        );
        assert_eq!(sample.limits, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    }

    #[test]
    fn lists_are_no_objects_and_nothing_comes_twice() {
        for bad in [
            r#"[{}]"#,
            r#"{"any":1,"any":1}"#,
            r#"{"any":{"a":1,"a":1}}"#,
            r#"{"any":[{"a":{"b":1,"b":2}}]}"#,
            r#"{"any":1,"limits":{"a":1,"a":2}}"#,
            r#"{"any":1,"limits":[]}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
