//! A setting is Kafka's key, a typed field, a range and one sentence, defined in one expression.

use std::fmt::Write as _;

/// What a setting's text must look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A 32-bit number within bounds, both included.
    Int {
        /// Least value allowed.
        min: i64,
        /// Greatest value allowed.
        max: i64,
    },
    /// A 64-bit number within bounds, both included.
    Long {
        /// Least value allowed.
        min: i64,
        /// Greatest value allowed.
        max: i64,
    },
    /// A number with a fraction, within bounds, both included.
    Double {
        /// Least value allowed.
        min: f64,
        /// Greatest value allowed.
        max: f64,
    },
    /// Any text.
    Text,
    /// Text of the form that these words describe. The setting's own type reads it.
    Form(&'static str),
    /// Words separated by commas; each must be one of these, unless there are none.
    List(&'static [&'static str]),
    /// One of a few words.
    Choice(&'static [&'static str]),
}

/// One setting as help, docs and `DescribeConfigs` show it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Property {
    /// The key, Kafka's where Kafka has one.
    pub key: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// The value where nobody sets one, as text.
    pub default: &'static str,
    /// What it does, in one sentence.
    pub doc: &'static str,
    /// Whether a broker's setting can be changed while it runs (KIP-226).
    pub dynamic: bool,
}

/// Why a setting was refused, in the operator's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// No setting has this key.
    #[error("unknown setting {key:?}{}", did_you_mean(*nearest))]
    Unknown {
        /// As written.
        key: String,
        /// The most similar key that exists.
        nearest: Option<&'static str>,
    },
    /// The value is not of the setting's type or lies outside its bounds.
    #[error("{key} = {value:?}: expected {expected}")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// As written.
        value: String,
        /// What would have been right.
        expected: String,
    },
}

fn did_you_mean(nearest: Option<&'static str>) -> String {
    nearest.map(|key| format!("; did you mean {key:?}?")).unwrap_or_default()
}

/// A type that a setting's text is read into. The text was checked against its [`Kind`] before.
pub trait PropertyValue: Sized {
    /// Reads the text, or `None` where it does not fit the type.
    fn read(text: &str) -> Option<Self>;
}

impl PropertyValue for bool {
    fn read(text: &str) -> Option<bool> {
        match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }
}

impl PropertyValue for String {
    fn read(text: &str) -> Option<String> {
        Some(text.to_owned())
    }
}

macro_rules! numbers {
    ($($number:ty),*) => { $(impl PropertyValue for $number {
        fn read(text: &str) -> Option<$number> { text.parse().ok() }
    })* };
}
numbers!(i32, i64, u16, u32, u64, usize, f64);

impl Property {
    /// Checks a value's text against type and bounds.
    ///
    /// # Errors
    /// [`PropertyError::Invalid`] says what was expected instead.
    pub fn check(&self, text: &str) -> Result<(), PropertyError> {
        let fits = match self.kind {
            Kind::Boolean => bool::read(text).is_some(),
            Kind::Int { min, max } => {
                i32::read(text).is_some_and(|n| (min..=max).contains(&i64::from(n)))
            }
            Kind::Long { min, max } => i64::read(text).is_some_and(|n| (min..=max).contains(&n)),
            Kind::Double { min, max } => f64::read(text).is_some_and(|n| n >= min && n <= max),
            Kind::Text | Kind::Form(_) => true,
            Kind::List(words) => {
                words.is_empty() || text.split(',').all(|word| words.contains(&word.trim()))
            }
            Kind::Choice(words) => words.contains(&text),
        };
        if fits { Ok(()) } else { Err(self.invalid(text)) }
    }

    /// The error that names this setting, the value and what was expected.
    #[must_use]
    pub fn invalid(&self, text: &str) -> PropertyError {
        let value = text.to_owned();
        PropertyError::Invalid { key: self.key, value, expected: self.expected() }
    }

    /// Type and bounds in words.
    #[must_use]
    pub fn expected(&self) -> String {
        let mut text = String::new();
        let written = match self.kind {
            Kind::Boolean => write!(text, "true or false"),
            Kind::Int { min, max } | Kind::Long { min, max } => {
                let number = match self.unit() {
                    Some(unit) => format!("a whole number of {unit}"),
                    None => "a whole number".to_owned(),
                };
                match max {
                    i64::MAX => write!(text, "{number}, at least {min}"),
                    _ => write!(text, "{number} from {min} to {max}"),
                }
            }
            Kind::Double { min, max } => write!(text, "a number from {min} to {max}"),
            Kind::Text => write!(text, "text"),
            Kind::Form(words) => write!(text, "{words}"),
            Kind::List([]) => write!(text, "words separated by commas"),
            Kind::List(words) => write!(text, "a comma-separated list of {}", words.join(", ")),
            Kind::Choice(words) => write!(text, "one of {}", words.join(", ")),
        };
        assert!(written.is_ok(), "writing to a String cannot fail");
        text
    }
}

impl Property {
    /// What a number counts, where its key says so as Kafka's do.
    fn unit(&self) -> Option<&'static str> {
        let (_, last) = self.key.rsplit_once('.')?;
        let units = [
            ("bytes", "bytes"),
            ("ms", "milliseconds"),
            ("minutes", "minutes"),
            ("hours", "hours"),
        ];
        units.iter().find(|(word, _)| *word == last).map(|(_, unit)| *unit)
    }
}

/// The key most like `key`, if one is near enough to be a slip of the hand.
#[must_use]
pub fn nearest(key: &str, properties: &[Property]) -> Option<&'static str> {
    let near = properties.iter().map(|property| (distance(key, property.key), property.key));
    near.min().filter(|(edits, _)| *edits <= 3).map(|(_, key)| key)
}

/// Edits (insert, delete, replace) that turn one key into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[to.len()]
}

/// Defines a struct of settings: each field's key, kind, default and sentence in one expression,
/// and the word `dynamic` behind those that can be changed while the broker runs.
///
/// The struct gets `Default`, `PROPERTIES`, `set(key, text)` and `get(key)`.
#[macro_export]
macro_rules! settings {
    (@is_dynamic dynamic) => { true };
    (@is_dynamic) => { false };
    ($(#[$meta:meta])* pub struct $name:ident {
        $(
            $(#[doc = $doc:literal])+
            $field:ident: $type:ty = $key:literal, $kind:expr, $default:literal $(, $mark:ident)?;
        )*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $($(#[doc = $doc])+ pub $field: $type,)* }

        impl $name {
            /// Every setting of this struct.
            pub const PROPERTIES: &[$crate::property::Property] = &[
                $($crate::property::Property {
                    key: $key, kind: $kind, default: $default, doc: concat!($($doc),+).trim_ascii(),
                    dynamic: $crate::settings!(@is_dynamic $($mark)?),
                },)*
            ];

            /// Sets one value from text.
            ///
            /// # Errors
            /// For an unknown key, or a value outside its type or bounds.
            pub fn set(&mut self, key: &str, text: &str)
                -> Result<(), $crate::property::PropertyError> {
                use $crate::property::PropertyValue as _;
                let Some(property) = Self::PROPERTIES.iter().find(|p| p.key == key) else {
                    let nearest = $crate::property::nearest(key, Self::PROPERTIES);
                    let key = key.to_owned();
                    return Err($crate::property::PropertyError::Unknown { key, nearest });
                };
                property.check(text)?;
                match key {
                    $($key => {
                        self.$field = <$type>::read(text).ok_or_else(|| property.invalid(text))?;
                    })*
                    _ => unreachable!("the table has this key"),
                }
                Ok(())
            }

            /// One value as text, `None` for an unknown key.
            #[must_use]
            pub fn get(&self, key: &str) -> Option<String> {
                match key { $($key => Some(self.$field.to_string()),)* _ => None }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                use $crate::property::PropertyValue as _;
                $name { $($field: <$type>::read($default).expect("a default fits its type"),)* }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    settings! {
        /// Two settings.
        pub struct Example {
            /// How many.
            count: u32 = "some.count", Kind::Int { min: 1, max: 9 }, "3";
            /// Which one.
            colour: String = "colour", Kind::Choice(&["red", "green"]), "red", dynamic;
        }
    }

    #[test]
    fn every_default_passes_its_own_check() {
        for property in Example::PROPERTIES {
            assert_eq!(property.check(property.default), Ok(()), "{}", property.key);
        }
    }

    #[test]
    fn what_is_marked_dynamic_is_and_nothing_else() {
        assert_eq!(
            Example::PROPERTIES.iter().map(|p| p.dynamic).collect::<Vec<_>>(),
            [false, true]
        );
    }

    #[test]
    fn a_bad_setting_is_refused_by_name() {
        let mut example = Example::default();
        let cases = [
            ("some.count", "10", "some.count = \"10\": expected a whole number from 1 to 9"),
            ("colour", "blue", "colour = \"blue\": expected one of red, green"),
            ("some.cuont", "1", "unknown setting \"some.cuont\"; did you mean \"some.count\"?"),
            ("entirely.other", "1", "unknown setting \"entirely.other\""),
        ];
        for (key, value, message) in cases {
            let refused = example.set(key, value).expect_err("a bad value");
            assert_eq!(refused.to_string(), message);
        }
        assert_eq!(example, Example::default());
        let kind = Kind::Long { min: -1, max: i64::MAX };
        let property = Property { key: "some.age.ms", kind, ..Example::PROPERTIES[0] };
        assert_eq!(property.expected(), "a whole number of milliseconds, at least -1");
        assert_eq!(example.set("some.count", "9"), Ok(()));
        assert_eq!(example.get("some.count").as_deref(), Some("9"));
    }
}
