//! The version of the client's files, and the lines that carry it.
//!
//! Every file names its version. A file that is written by programs alone also has a checksum, at the same
//! place in every version, so that a file of another version differs from a damaged one. A file of another
//! version is not touched; the program that wrote it can read it.

/// The version of every file that the client writes.
pub(super) const VERSION: u32 = 1;

/// A text is not a file of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is in this other version of the format; the next one if it names this one and holds what only a
    /// later program writes.
    OtherVersion(u32),
    /// It is not what a program wrote.
    Damaged,
}

/// A file of one line: its version, its content and the CRC-32C of both.
pub(super) fn line(content: &str) -> String {
    let versioned = format!("v{VERSION} {content}");
    format!("{versioned} {:08x}\n", crc32c::crc32c(versioned.as_bytes()))
}

/// The content of a file that [`line`] wrote.
///
/// # Errors
/// [`Unreadable`].
pub(super) fn read_line(text: &str) -> Result<&str, Unreadable> {
    let parts = || {
        let (versioned, crc) = text.strip_suffix('\n')?.rsplit_once(' ')?;
        let (version, content) = versioned.strip_prefix('v')?.split_once(' ')?;
        let good = crc == format!("{:08x}", crc32c::crc32c(versioned.as_bytes()));
        good.then_some((version.parse::<u32>().ok()?, content))
    };
    match parts().ok_or(Unreadable::Damaged)? {
        (VERSION, content) => Ok(content),
        (other, _) => Err(Unreadable::OtherVersion(other)),
    }
}

/// Checks the version that a file of TOML without a checksum names as `version`.
///
/// # Errors
/// [`Unreadable`].
pub(super) fn check_toml(text: &str) -> Result<(), Unreadable> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    match toml::from_str(text) {
        Ok(Versioned { version: VERSION }) => Ok(()),
        Ok(Versioned { version }) => Err(Unreadable::OtherVersion(version)),
        Err(_) => Err(Unreadable::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written_and_no_flipped_bit_makes_another_version() {
        let text = line("some content");
        assert_eq!(read_line(&text), Ok("some content"));
        for bit in 0..8 * text.len() {
            let mut bad = text.clone().into_bytes();
            bad[bit / 8] ^= 1 << (bit % 8);
            let Ok(bad) = String::from_utf8(bad) else { continue };
            assert_eq!(read_line(&bad), Err(Unreadable::Damaged), "bit {bit}");
        }
        for bad in ["", "\n", "v1\n", "v1 \n", &text[..text.len() - 1]] {
            assert_eq!(read_line(bad), Err(Unreadable::Damaged), "{bad:?}");
        }
    }

    #[test]
    fn another_version_with_a_good_checksum_is_named() {
        let versioned = "v2 something else";
        let text = format!("{versioned} {:08x}\n", crc32c::crc32c(versioned.as_bytes()));
        assert_eq!(read_line(&text), Err(Unreadable::OtherVersion(2)));
        assert_eq!(check_toml("version = 2\nmore = 1\n"), Err(Unreadable::OtherVersion(2)));
        assert_eq!(check_toml("more = 1\n"), Err(Unreadable::Damaged));
        assert_eq!(check_toml("version = 1\nmore = 1\n"), Ok(()));
    }
}
