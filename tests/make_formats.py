"""Writes the small files of tests/data/formats, which tests/formats.rs reads: one for each format,
type, order of bytes and of axes, with what NumPy and h5py say is in them.

    python3 -m venv /tmp/formats && /tmp/formats/bin/pip install numpy h5py
    /tmp/formats/bin/python tests/make_formats.py

expected.txt says what is in them. For each table: a line with its name, its rows and columns and
the type in which our reader has to keep it ("u1" or "f4"), and a line for each row. A byte is a
number, a float the eight hexadecimal digits of its bits, so that it is stated exactly.
"""

import io
import pathlib
import zipfile

import h5py
import numpy as np

FOLDER = pathlib.Path(__file__).parent / "data" / "formats"
RNG = np.random.default_rng(19)
ROWS, DIM = 7, 5


EXPECTED = []


def expected(name, array):
    """States what is in the file `name`."""
    kept = "u1" if array.dtype.kind == "b" or array.dtype == np.uint8 else "f4"
    EXPECTED.append(f"{name} {array.shape[0]} {array.shape[1]} {kept}")
    if kept == "u1":
        EXPECTED.extend(" ".join(map(str, row)) for row in array.astype(np.uint8))
    else:
        # Where float32 does not have a float64, NumPy rounds it to the nearest.
        bits = array.astype(np.float32).view(np.uint32)
        EXPECTED.extend(" ".join(f"{value:08x}" for value in row) for row in bits)


def values(dtype, whole=False):
    """An array of that type with its least and greatest value that float32 has."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return RNG.random((ROWS, DIM)) < 0.5
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        # Whole numbers up to 2^24, and powers of two up to the greatest.
        low, high = max(info.min, -(2**24)), min(info.max, 2**24)
        array = RNG.integers(low, high, (ROWS, DIM), endpoint=True).astype(dtype)
        array[0, 0] = info.min
        array[ROWS - 1, DIM - 1] = info.max if dtype.itemsize < 4 else info.max // 2 + 1
        return array
    array = RNG.normal(size=(ROWS, DIM)) * 100
    if dtype == np.float16:
        array[1, 1], array[2, 2], array[3, 3] = 65504.0, 2.0**-24, -(2.0**-14)
    if dtype == np.float32:
        array[1, 1], array[2, 2] = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
    return array.astype(dtype)


def npy():
    for dtype in ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]:
        array = values(dtype)
        for order in "<>":
            for axes in "CF":
                if np.dtype(dtype).itemsize == 1 and order == ">":
                    continue
                name = f"{np.dtype(dtype).name}_{'le' if order == '<' else 'be'}_{axes}.npy"
                stored = np.array(array, dtype=np.dtype(dtype).newbyteorder(order), order=axes)
                np.save(FOLDER / name, stored)
                expected(name, array)
    for version in [(2, 0), (3, 0)]:
        name = f"version_{version[0]}.npy"
        array = values("f4")
        with open(FOLDER / name, "wb") as file:
            np.lib.format.write_array(file, array, version=version)
        expected(name, array)


def npz():
    floats, bytes_ = values("f4"), values("u1")
    for name, save in [("stored", np.savez), ("deflated", np.savez_compressed)]:
        save(FOLDER / f"{name}.npz", floats=floats, bytes=bytes_, columns=np.asfortranarray(floats))
        expected(f"{name}.npz:floats", floats)
        expected(f"{name}.npz:bytes", bytes_)
        expected(f"{name}.npz:columns", floats)
    np.savez_compressed(FOLDER / "only.npz", values("i2"))
    expected("only.npz", np.load(FOLDER / "only.npz")["arr_0"])
    # As Python's zipfile writes a member whose length it does not know beforehand.
    buffer = io.BytesIO()
    np.save(buffer, floats)
    with zipfile.ZipFile(FOLDER / "zip64.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.npy", "w", force_zip64=True) as member:
            member.write(buffer.getvalue())
    expected("zip64.npz", floats)


def records():
    for ending, dtype in [("fvecs", "<f4"), ("ivecs", "<i4"), ("bvecs", "u1")]:
        array = values(dtype)
        name = f"records.{ending}"
        with open(FOLDER / name, "wb") as file:
            for row in array.astype(dtype):
                file.write(np.array([DIM], "<u4").tobytes() + row.tobytes())
        expected(name, array)


def big_ann():
    for ending, dtype in [("fbin", "<f4"), ("u8bin", "u1"), ("i8bin", "i1")]:
        array = values(dtype)
        name = f"big_ann.{ending}"
        header = np.array(array.shape, "<u4").tobytes()
        (FOLDER / name).write_bytes(header + array.astype(dtype).tobytes())
        expected(name, array)


def hdf5():
    # As ann-benchmarks writes its files.
    name = "ann_benchmarks.hdf5"
    with h5py.File(FOLDER / name, "w") as file:
        file.attrs["type"], file.attrs["distance"] = "dense", "euclidean"
        file.attrs["dimension"] = DIM
        for member, array in [("train", values("f4")), ("test", values("f4")),
                              ("neighbors", values("u2").astype("i4"))]:
            file.create_dataset(member, data=array)
            expected(f"{name}:{member}", array)
    name = "types.hdf5"
    with h5py.File(FOLDER / name, "w") as file:
        for dtype in "? u1 i1 <i2 >i2 <u4 <i8 >i8 <f2 >f4 <f8 >f8".split():
            array = values(dtype)
            member = "group/" + np.dtype(dtype).name + ("_be" if dtype[0] == ">" else "")
            file.create_dataset(member, data=array)
            expected(f"{name}:{member}", array)
    # Of a newer layout, in chunks, packed, and the only data set.
    for libver in ["earliest", "latest"]:
        for packed in [False, True]:
            name = f"chunks_{libver}{'_packed' if packed else ''}.h5"
            array = RNG.normal(size=(41, 9)).astype("f4").round(1)
            filters = {"compression": "gzip", "shuffle": True, "fletcher32": True}
            more = filters if packed else {}
            with h5py.File(FOLDER / name, "w", libver=libver) as file:
                file.create_dataset("x", data=array, chunks=(16, 4), maxshape=(None, 9), **more)
            expected(name, array)
    # What has to be refused: a part that was never written, and a table of no numbers.
    with h5py.File(FOLDER / "unwritten.h5", "w") as file:
        dataset = file.create_dataset("chunks", (64, 4), dtype="f4", chunks=(16, 4))
        dataset[:16] = 1
        file.create_dataset("huge", (2**40, 2**20), dtype="f4", chunks=(16, 4))
        file.create_dataset("names", data=np.array([[b"ab"]]))
        file.create_dataset("line", data=np.arange(4, dtype="f4"))


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    npy()
    npz()
    records()
    big_ann()
    hdf5()
    (FOLDER / "expected.txt").write_text("\n".join(EXPECTED) + "\n")
