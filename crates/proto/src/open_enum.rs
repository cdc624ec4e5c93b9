//! Enums of which a receiver need not know every value.

/// Declares an enum whose values travel as numbers of 16 bits. A number of a later version is `Unknown`, so
/// that what is around it is still read.
///
/// The encoding is that of an enum in [`codec`](crate::codec): the position of the variant, from zero.
macro_rules! open_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $($(#[$doc:meta])* $variant:ident,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(from = "u16", into = "u16")]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A value of a later version, by its number.
            Unknown(u16),
        }

        impl $name {
            /// All values of this version, by number.
            pub const ALL: &[$name] = &[$($name::$variant,)*];
        }

        impl From<u16> for $name {
            fn from(number: u16) -> $name {
                $name::ALL.get(usize::from(number)).copied().unwrap_or($name::Unknown(number))
            }
        }

        impl From<$name> for u16 {
            fn from(value: $name) -> u16 {
                enum Place {
                    $($variant,)*
                }
                match value {
                    $($name::$variant => Place::$variant as u16,)*
                    $name::Unknown(number) => number,
                }
            }
        }
    };
}

pub(crate) use open_enum;

#[cfg(test)]
mod tests {
    use crate::codec;
    use crate::entry::EntryKind;
    use crate::packet::{Code, RefusedDatagram, RoleName};

    #[test]
    fn a_value_is_encoded_by_its_position_and_an_unknown_number_survives() {
        for (number, code) in (0..).zip(Code::ALL) {
            assert_eq!(codec::encode(code), [number], "{code:?}");
            assert_eq!(codec::decode(&[number]), Ok(*code));
        }
        let next = Code::ALL.len() as u16;
        for number in [next, 250, 251, u16::MAX] {
            let bytes = codec::encode(&Code::Unknown(number));
            assert_eq!(codec::decode(&bytes), Ok(Code::Unknown(number)));
            assert_eq!(codec::decode(&bytes), Ok(RefusedDatagram::Unknown(number)));
            assert_eq!(codec::decode(&bytes), Ok(RoleName::Unknown(number)));
            assert_eq!(codec::decode(&bytes), Ok(EntryKind::Unknown(number)));
        }
    }
}
