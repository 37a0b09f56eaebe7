//! An array of a `.npz` file: a zip archive with a `.npy` file for each, stored (`numpy.savez`) or
//! deflated (`numpy.savez_compressed`).

use std::io::{self, Read, Seek};

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::{Fault, Loss, MOST_OF_ONE, npy};
use crate::vectors::Vectors;

/// Reads the member of that name, or the only one.
pub(super) fn read(
    file: impl Read + Seek,
    length: u64,
    member: Option<&str>,
) -> Result<(Vectors, Loss), Fault> {
    let mut archive = ZipArchive::new(file)?;
    let index = find(&archive, member)?;
    let size = checked_size(&mut archive, index, length)?;
    let mut values = archive.by_index(index)?;
    let (table, _) = npy::header(&mut values, size)?;
    let answer = table.read(&mut values)?;
    // The archive's sum over the bytes is compared where they end.
    io::copy(&mut values, &mut io::sink())?;
    Ok(answer)
}

/// Which member is meant.
fn find<R>(archive: &ZipArchive<R>, member: Option<&str>) -> Result<usize, Fault>
where
    R: Read + Seek,
{
    // What is no text cannot be asked for.
    let names: Vec<String> = archive.file_names().flatten().map(Into::into).collect();
    let named = match member {
        // NumPy's own name for an array is that of the file without its ending.
        Some(name) => names
            .iter()
            .find(|has| *has == name || has.strip_suffix(".npy") == Some(name)),
        None if names.len() == 1 => names.first(),
        None => None,
    };
    let found = named.and_then(|name| archive.index_for_name(name));
    found.ok_or_else(|| {
        // Enough of them to know which file this is.
        let some = names.iter().take(20);
        let some: Vec<&str> = some.map(|name| name.trim_end_matches(".npy")).collect();
        let (count, some) = (names.len(), some.join(", "));
        Fault::Malformed(match member {
            Some(name) => format!("no array {name:?} among its {count}: {some}"),
            None => format!("{count} arrays; expected one, or its name, as FILE.npz:NAME: {some}"),
        })
    })
}

/// How many bytes the member has, which is counted where the archive's word is not enough: a small
/// file can promise any number of them.
fn checked_size<R>(archive: &mut ZipArchive<R>, index: usize, length: u64) -> Result<u64, Fault>
where
    R: Read + Seek,
{
    let mut member = archive.by_index(index)?;
    let (size, packed) = (member.size(), member.compressed_size());
    let most = match member.compression() {
        CompressionMethod::Stored => packed,
        CompressionMethod::Deflated => packed.saturating_mul(MOST_OF_ONE),
        other => {
            let why =
                format!("{other} is not read; numpy.savez and savez_compressed do not use it");
            return Err(Fault::Malformed(why));
        }
    };
    if packed > length || size > most {
        return Err(Fault::Malformed(format!(
            "the archive promises {size} bytes out of {packed}, in a file of {length}"
        )));
    }
    if member.compression() == CompressionMethod::Deflated {
        // Unpacked twice, and the first time only counted: it takes no memory, and the second time
        // the memory is taken for what is there.
        let counted = io::copy(&mut (&mut member).take(size + 1), &mut io::sink())?;
        if counted != size {
            return Err(Fault::Malformed(format!(
                "the archive promises {size} bytes; {counted} come out of it"
            )));
        }
    }
    Ok(size)
}

impl From<ZipError> for Fault {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::Io(error) => Self::Io(error),
            other => Self::Malformed(format!("no archive of arrays: {other}")),
        }
    }
}
