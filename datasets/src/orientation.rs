//! How an image is to be turned, by its EXIF or else by its XMP: what Pillow's `exif_transpose` does, and with it Hugging
//! Face's datasets and transformers.

use image::metadata::Orientation;

/// The orientation of an image with that metadata.
pub(crate) fn of(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let said = exif.and_then(of_exif).or_else(|| xmp.and_then(of_xmp));
    said.and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
}

/// The value of the orientation tag; 0, which turns nothing, if it is there but is no single whole number.
fn of_exif(exif: &[u8]) -> Option<u8> {
    /// What stands before the data in a JPEG; some programs write it, even twice, in other files too.
    const HEAD: &[u8] = b"Exif\0\0";
    const ORIENTATION: usize = 0x112;
    const ENTRY: usize = 12;
    let exif = exif.strip_prefix(HEAD).unwrap_or(exif);
    let exif = exif.strip_prefix(HEAD).unwrap_or(exif);
    let little = match exif.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let number = |bytes: &[u8]| {
        let digit = |number: usize, byte: &u8| number << 8 | usize::from(*byte);
        match little {
            true => bytes.iter().rev().fold(0, digit),
            false => bytes.iter().fold(0, digit),
        }
    };
    let directory = exif.get(number(exif.get(4..8)?)..)?;
    let (count, entries) = directory.split_at_checked(2)?;
    // If a tag occurs twice, the last one counts.
    let entry = entries
        .chunks_exact(ENTRY)
        .take(number(count))
        .rfind(|entry| number(&entry[..2]) == ORIENTATION)?;
    let value = match (number(&entry[2..4]), number(&entry[4..8])) {
        (3 | 8, 1) => number(&entry[8..10]),
        (4 | 9, 1) => number(&entry[8..]),
        _ => 0,
    };
    Some(u8::try_from(value).unwrap_or(0))
}

/// The digit after `tiff:Orientation="` or `<tiff:Orientation>`.
fn of_xmp(xmp: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut places = xmp.windows(NAME.len()).enumerate().filter(|(_, found)| *found == NAME);
    places.find_map(|(at, _)| {
        let rest = &xmp[at + NAME.len()..];
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        let digit = value.first().filter(|digit| digit.is_ascii_digit())?;
        Some(digit - b'0')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXIF with that one entry of type `kind`.
    fn exif(kind: u16, values: u32, value: u32, little: bool) -> Vec<u8> {
        let short = |number: u16| match little {
            true => number.to_le_bytes(),
            false => number.to_be_bytes(),
        };
        let long = |number: u32| match little {
            true => number.to_le_bytes(),
            false => number.to_be_bytes(),
        };
        let field = match kind {
            4 => long(value),
            _ => {
                let [a, b] = short(value as u16);
                [a, b, 0, 0]
            }
        };
        let head: &[u8] = if little { b"II*\0" } else { b"MM\0*" };
        [
            head,
            &long(8),
            &short(1),
            &short(0x112),
            &short(kind),
            &long(values),
            &field,
            &[0; 4],
        ]
        .concat()
    }

    #[test]
    fn exif_says_it_in_either_order_of_bytes_as_short_or_long() {
        for little in [true, false] {
            for kind in [3, 4] {
                let exif = exif(kind, 1, 6, little);
                assert_eq!(of(Some(&exif), None), Orientation::Rotate90, "{kind} {little}");
                let headed = [b"Exif\0\0", &exif[..]].concat();
                assert_eq!(of(Some(&headed), None), Orientation::Rotate90, "{kind} {little}");
                for length in 0..exif.len() {
                    // Cut off it may say nothing, but is read.
                    of(Some(&exif[..length]), None);
                }
            }
        }
        for unusable in [
            exif(3, 2, 6, true),
            exif(2, 1, 6, true),
            exif(3, 1, 9, true),
            exif(4, 1, 1 << 20, true),
        ] {
            assert_eq!(of(Some(&unusable), None), Orientation::NoTransforms);
        }
    }

    #[test]
    fn xmp_says_it_where_exif_does_not() {
        let attribute = b"<rdf:Description tiff:Orientation=\"6\"/>";
        let element = b"tiff:Orientation? <tiff:Orientation>8</tiff:Orientation>";
        assert_eq!(of(None, Some(attribute)), Orientation::Rotate90);
        assert_eq!(of(None, Some(element)), Orientation::Rotate270);
        assert_eq!(of(Some(&exif(3, 1, 3, true)), Some(attribute)), Orientation::Rotate180);
        // One that turns nothing is one too.
        assert_eq!(
            of(Some(&exif(3, 2, 3, true)), Some(attribute)),
            Orientation::NoTransforms
        );
        assert_eq!(of(Some(b"II*\0"), Some(attribute)), Orientation::Rotate90);
        for silent in [
            &b"tiff:Orientation"[..],
            b"tiff:Orientation='6'",
            b"tiff:Orientation=\"x\"",
            b"",
        ] {
            assert_eq!(of(None, Some(silent)), Orientation::NoTransforms);
        }
    }
}
