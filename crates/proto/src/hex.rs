//! Hexadecimal text: two digits for each byte.

use std::fmt;

/// Shows bytes as lower-case digits.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Reads exactly `N` bytes, in digits of either case; `None` if the text is anything else.
pub fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = [0; N];
    if pairs.len() != N {
        return None;
    }
    let digit = |digit: u8| char::from(digit).to_digit(16);
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_again_in_either_case() {
        let bytes: [u8; 32] = std::array::from_fn(|i| i as u8 * 7);
        let shown = Hex(&bytes).to_string();
        assert_eq!(&shown[..8], "00070e15");
        assert_eq!(parse(&shown), Some(bytes));
        assert_eq!(parse(&shown.to_uppercase()), Some(bytes));
    }

    #[test]
    fn anything_else_is_nothing() {
        for text in ["", "00", "0000", "00000", "000000 ", "00000g", "+00+00", "0000\u{e9}"] {
            assert_eq!(parse::<3>(text), None, "{text:?}");
        }
        assert_eq!(parse("00fF80"), Some([0, 255, 128]));
    }
}
