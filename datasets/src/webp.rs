//! Checks the chunks of a WebP file before it is decoded, because the decoder allocates as much memory as a chunk
//! claims to contain.

/// Refuses a file one of whose chunks claims more bytes than follow it.
///
/// # Errors
/// A file that is truncated or damaged.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    // Skips RIFF, the length of the rest, WEBP.
    chunks(bytes.get(12..).unwrap_or_default(), false)
}

fn chunks(mut rest: &[u8], is_in_frame: bool) -> Result<(), String> {
    /// Length of a frame's position, size and timing, before its own chunks.
    const FRAME: usize = 16;
    while let [a, b, c, d, l0, l1, l2, l3, after @ ..] = rest {
        let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
        let Some(content) = after.get(..length) else {
            return Err(format!(
                "the WebP is cut off: a chunk of it claims {length} bytes, and {} follow",
                after.len()
            ));
        };
        // A frame within a frame is not looked for by the decoder either, and there could be a million, each in another.
        if [*a, *b, *c, *d] == *b"ANMF" && !is_in_frame {
            chunks(content.get(FRAME..).unwrap_or_default(), true)?;
        }
        // Chunks begin at even positions.
        rest = after.get(length + length % 2..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut chunk = [&name[..], &(content.len() as u32).to_le_bytes(), content].concat();
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    }

    #[test]
    fn chunks_must_lie_in_the_file() {
        let inner = chunk(b"VP8L", &[1, 2, 3]);
        let frame = chunk(b"ANMF", &[&[0; 16][..], &inner].concat());
        let file = [
            &chunk(b"RIFF", b"WEBP")[..],
            &chunk(b"VP8X", &[0; 10]),
            &frame,
            &chunk(b"EXIF", b"II*"),
        ]
        .concat();
        assert_eq!(check(&file), Ok(()));
        assert_eq!(
            check(&file[..file.len() - 1]),
            Ok(()),
            "the last padding may be missing"
        );
        assert!(
            check(&file[..file.len() - 2])
                .unwrap_err()
                .contains("claims 3 bytes, and 2 follow")
        );
        let mut claims = file.clone();
        let at = file.len() - 8;
        claims[at..at + 4].copy_from_slice(&[0xFF; 4]);
        assert!(check(&claims).unwrap_err().contains("claims 4294967295 bytes"));
        let mut nested = file.clone();
        let at = nested.windows(4).position(|name| name == b"VP8L").unwrap();
        nested[at + 4] = 200;
        assert!(check(&nested).is_err());
        assert_eq!(check(b"RIFF"), Ok(()));
    }

    #[test]
    fn frames_within_frames_do_not_use_up_the_stack() {
        let image = chunk(b"VP8L", &[1, 2, 3]);
        let mut heads = Vec::new();
        let mut length = image.len();
        for _ in 0..200_000 {
            let frame = [&b"ANMF"[..], &(length as u32 + 16).to_le_bytes(), &[0; 16]].concat();
            length += frame.len();
            heads.push(frame);
        }
        heads.reverse();
        let file = [chunk(b"RIFF", b"WEBP"), heads.concat(), image].concat();
        assert_eq!(check(&file), Ok(()));
    }
}
