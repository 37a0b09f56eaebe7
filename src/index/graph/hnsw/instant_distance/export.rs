//! Reads a graph out of `instant_distance`, which shows its links to serde only.
//!
//! A value that is serialised describes itself by calls: "a struct; its field `zero`; a sequence of
//! 60,000; a tuple of 64; 17; …". The [`Collector`] answers them by writing the numbers one after
//! the other into a `Vec<u32>`, each list after its length. instant-distance's graph becomes
//!
//! ```text
//! points   n, then the id of each row, in instant-distance's order
//! zero     n, then for each row   64, 64 links
//! layers   l, then for each layer   m, then for each row   32, 32 links
//! ```

use serde::ser::{Impossible, SerializeSeq, SerializeStruct, SerializeTuple};
use serde::{Serialize, Serializer};

use crate::index::graph::hnsw::layer::Layer;

/// Where a row has fewer links than its list has places, the places left hold this.
const UNUSED: u32 = u32::MAX;

/// The graph that instant-distance has built.
#[derive(Debug)]
pub struct Exported {
    /// What the points serialised as, in the order by which the links number them.
    pub order: Vec<u32>,
    /// The lowest layer first.
    pub layers: Vec<Layer>,
}

impl Exported {
    /// Of an [`instant_distance::Hnsw`] whose points serialise as numbers.
    pub fn new(graph: &impl Serialize) -> Self {
        let mut collector = Collector::default();
        let written = graph.serialize(&mut collector);
        written.expect("the graph has no other values than those that are collected");
        let mut reader = Reader(&collector.numbers);
        // In the order of the fields: `points`, `zero`, `layers`. A layer of the latter has the
        // same form as `zero`.
        let order = reader.list().to_vec();
        // The lowest layer is `zero`. Those of `layers` follow from below.
        let mut layers = vec![reader.layer()];
        for _ in 0..reader.number() {
            layers.push(reader.layer());
        }
        Self { order, layers }
    }
}

/// Reads what a [`Collector`] has written.
struct Reader<'a>(&'a [u32]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> u32 {
        let (&number, rest) = self.0.split_first().expect("one more number");
        self.0 = rest;
        number
    }

    fn list(&mut self) -> &'a [u32] {
        let len = self.number() as usize;
        let (list, rest) = self.0.split_at(len);
        self.0 = rest;
        list
    }

    fn layer(&mut self) -> Layer {
        // Each row has a list with all its places. The links come first, then the places left.
        let rows = self.number();
        let lists: Vec<&[u32]> = (0..rows)
            .map(|_| {
                let places = self.list();
                let unused = places.iter().position(|&target| target == UNUSED);
                &places[..unused.unwrap_or(places.len())]
            })
            .collect();
        // As many places as the longest list fills: a walk reads all of them.
        let longest = lists.iter().map(|list| list.len()).max();
        let mut layer = Layer::new(lists.len(), longest.unwrap_or(0).max(1));
        for (row, list) in lists.iter().enumerate() {
            layer.set(row as u32, list);
        }
        layer
    }
}

/// A serialiser of numbers, sequences and tuples.
#[derive(Debug, Default)]
struct Collector {
    numbers: Vec<u32>,
}

/// serde's plainest error: a text.
type Error = serde::de::value::Error;

fn refused() -> Error {
    serde::ser::Error::custom("neither a number of 32 bits nor a list of such")
}

/// Methods that refuse a kind of value that the graph does not have.
macro_rules! refuse {
    ($($method:ident($($value:ty),*);)*) => {
        $(fn $method(self, $(_: $value),*) -> Result<(), Error> {
            Err(refused())
        })*
    };
}

impl Serializer for &mut Collector {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeStruct = Self;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    fn serialize_u32(self, number: u32) -> Result<(), Error> {
        self.numbers.push(number);
        Ok(())
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self, Error> {
        // A sequence is read by its length, so one of unknown length cannot be written.
        self.serialize_tuple(len.ok_or_else(refused)?)
    }

    fn serialize_tuple(self, len: usize) -> Result<Self, Error> {
        self.numbers.push(len as u32);
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        inner: &T,
    ) -> Result<(), Error> {
        inner.serialize(self)
    }

    refuse! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    fn serialize_some<T: ?Sized + Serialize>(self, _: &T) -> Result<(), Error> {
        Err(refused())
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        Err(refused())
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Error> {
        Err(refused())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        Err(refused())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Error> {
        Err(refused())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        Err(refused())
    }
}

impl SerializeSeq for &mut Collector {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, element: &T) -> Result<(), Error> {
        element.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

impl SerializeTuple for &mut Collector {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, element: &T) -> Result<(), Error> {
        element.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

impl SerializeStruct for &mut Collector {
    type Ok = ();
    type Error = Error;

    /// Of the graph, the fields in the order of their declaration: `ef_search`, `points`, `zero`,
    /// `layers`. The first is a setting, and left out.
    fn serialize_field<T: ?Sized + Serialize>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        if name == "ef_search" {
            return Ok(());
        }
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the shape of instant-distance's graph, with lists of three places and of two.
    #[derive(Serialize)]
    struct Toy {
        ef_search: usize,
        points: Vec<u32>,
        zero: Vec<[u32; 3]>,
        layers: Vec<Vec<[u32; 2]>>,
    }

    #[test]
    fn a_graph_is_read_as_it_is_and_unused_places_are_left_out() {
        let toy = Toy {
            ef_search: 100,
            points: vec![5, 3, 4],
            zero: vec![[1, 2, UNUSED], [0, UNUSED, UNUSED], [1, 0, UNUSED]],
            layers: vec![vec![[1, UNUSED], [0, UNUSED]], vec![[UNUSED, UNUSED]]],
        };
        let exported = Exported::new(&toy);
        assert_eq!(exported.order, [5, 3, 4]);
        let lists = |layer: &Layer| {
            let rows = 0..layer.len() as u32;
            rows.map(|row| layer.links(row).to_vec())
                .collect::<Vec<_>>()
        };
        let layers: Vec<_> = exported.layers.iter().map(lists).collect();
        assert_eq!(layers[0], [vec![1, 2], vec![0], vec![1, 0]]);
        assert_eq!(layers[1], [vec![1], vec![0]]);
        assert_eq!(layers[2], [Vec::<u32>::new()]);
    }

    #[test]
    #[should_panic(expected = "no other values")]
    fn what_is_no_graph_is_refused() {
        Exported::new(&"a graph");
    }
}
