//! The header of a NumPy file (NEP 1, <https://numpy.org/neps/nep-0001-npy-format.html>).
//!
//! ```text
//! | \x93NUMPY | version: 2 bytes | length: u16, from version 2 on u32 | a dictionary of Python |
//! ```
//!
//! The dictionary is `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }`. It is read as
//! far as a plain array has it: records, and whatever else Python can say, are refused.

use std::io::{self, Read};

use super::Fault;
use super::numbers::{Kind, Table};

/// The longest header, as in `numpy.load` (`max_header_size`).
const HEADER: u64 = 10_000;

/// Reads the header of a file of `length` bytes, and compares it with them. Returns where the
/// values begin, too.
pub(super) fn header(file: &mut impl Read, length: u64) -> Result<(Table, u64), Fault> {
    let mut start = [0; 8];
    fill(file, &mut start)?;
    if !start.starts_with(b"\x93NUMPY") {
        return Err(malformed("the file does not begin with \\x93NUMPY"));
    }
    let mut bytes = [0; 4];
    match start[6] {
        1 => fill(file, &mut bytes[..2])?,
        2 | 3 => fill(file, &mut bytes)?,
        other => return Err(malformed(&format!("version {other} of the format"))),
    }
    let dictionary = u64::from(u32::from_le_bytes(bytes));
    if dictionary > HEADER {
        let why = format!("a header of {dictionary} bytes describes no plain array");
        return Err(malformed(&why));
    }
    let mut header = vec![0; dictionary as usize];
    fill(file, &mut header)?;
    let text = str::from_utf8(&header).ok();
    let table = match text.and_then(|text| Parser(text).dictionary()) {
        Some(header) => table(&header)?,
        None => return Err(malformed("the header describes no plain array")),
    };
    let begin = if start[6] == 1 { 10 } else { 12 } + dictionary;
    table.check(length.saturating_sub(begin))?;
    Ok((table, begin))
}

/// The table that the header describes.
fn table(header: &Header<'_>) -> Result<Table, Fault> {
    let &Header {
        descr,
        by_columns,
        ref shape,
    } = header;
    let (order, name) = match descr.as_bytes().first() {
        Some(b'<' | b'>' | b'|' | b'=') => descr.split_at(1),
        _ => ("=", descr),
    };
    let kind = match name {
        "b1" => Kind::Bool,
        "u1" => Kind::U8,
        "i1" => Kind::I8,
        "u2" => Kind::U16,
        "i2" => Kind::I16,
        "u4" => Kind::U32,
        "i4" => Kind::I32,
        "u8" => Kind::U64,
        "i8" => Kind::I64,
        "f2" => Kind::F16,
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        _ => return Err(malformed(&format!("the values are of the type {descr:?}"))),
    };
    let &[rows, dim] = &shape[..] else {
        return Err(malformed(&format!("the shape is {shape:?}")));
    };
    Ok(Table {
        kind,
        big_endian: order == ">" || (cfg!(target_endian = "big") && "|=".contains(order)),
        by_columns,
        rows,
        dim,
    })
}

/// Reads so many bytes of the header.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> Result<(), Fault> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => malformed("the file ends within its header"),
        _ => Fault::Io(error),
    })
}

fn malformed(why: &str) -> Fault {
    Fault::Malformed(format!(
        "{why}; expected an n × d array of integers, float16, float32 or float64, as numpy.save \
         writes it"
    ))
}

/// What the dictionary says.
struct Header<'a> {
    descr: &'a str,
    by_columns: bool,
    shape: Vec<usize>,
}

/// Reads the dictionary from the left to the right: what is left.
struct Parser<'a>(&'a str);

impl<'a> Parser<'a> {
    fn dictionary(mut self) -> Option<Header<'a>> {
        let (mut descr, mut by_columns, mut shape) = (None, None, None);
        self.token("{")?;
        while self.token("}").is_none() {
            let key = self.string()?;
            self.token(":")?;
            match key {
                "descr" => descr = Some(self.string()?),
                "fortran_order" if self.token("True").is_some() => by_columns = Some(true),
                "fortran_order" => by_columns = self.token("False").map(|()| false),
                "shape" => shape = Some(self.tuple()?),
                _ => return None,
            }
            // The last comma may be left out.
            if self.token(",").is_none() {
                self.token("}")?;
                break;
            }
        }
        if !self.0.trim().is_empty() {
            return None;
        }
        Some(Header {
            descr: descr?,
            by_columns: by_columns?,
            shape: shape?,
        })
    }

    /// This and nothing else is next, after blanks.
    fn token(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(token)?;
        Some(())
    }

    /// A string between quotes, without any in it.
    fn string(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let quote = text.chars().next().filter(|&quote| "'\"".contains(quote))?;
        let (string, rest) = text[1..].split_once(quote)?;
        self.0 = rest;
        (!string.contains('\\')).then_some(string)
    }

    /// Numbers between brackets, as `()`, `(3,)`, `(3, 2)` and `(3L, 2L)` of Python 2.
    fn tuple(&mut self) -> Option<Vec<usize>> {
        let mut numbers = Vec::new();
        self.token("(")?;
        while self.token(")").is_none() {
            let text = self.0.trim_start();
            let end = text.find(|letter: char| !letter.is_ascii_digit())?;
            numbers.push(text[..end].parse().ok()?);
            self.0 = &text[end..];
            let _ = self.token("L");
            if self.token(",").is_none() {
                self.token(")")?;
                break;
            }
        }
        Some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_is_read_in_any_order_and_nothing_else() {
        let read = |text| {
            let header = Parser(text).dictionary()?;
            Some((header.descr, header.by_columns, header.shape))
        };
        let expected = Some(("<f4", true, vec![3, 2]));
        for text in [
            "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2), }   \n",
            "{\"shape\":(3L,2L),\"fortran_order\":True,\"descr\":\"<f4\"}",
            " { 'descr' : '<f4' , 'fortran_order' : True , 'shape' : ( 3 , 2 , ) }",
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        let rest = "'fortran_order': False, 'shape': ";
        for (shape, numbers) in [("()", vec![]), ("(3,)", vec![3])] {
            let text = format!("{{'descr': '|u1', {rest}{shape}}}");
            assert_eq!(Parser(&text).dictionary().unwrap().shape, numbers);
        }
        for text in [
            "",
            "{}",
            "{'descr': '<f4', 'fortran_order': True}",
            "{'descr': '<f4', 'fortran_order': 1, 'shape': (3, 2)}",
            "{'descr': [('x', '<f4')], 'fortran_order': True, 'shape': (3, 2)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (-3, 2)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (3 2)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2)",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2)} and more",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (99999999999999999999, 2)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2), 'é': 1}",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
