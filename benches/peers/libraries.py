"""The libraries of `make peers`, by their names for --only, in the order of the run."""

from peers import (
    annoy,
    annsearch,
    faiss,
    glass,
    hnswlib,
    ngt,
    nmslib,
    panorama,
    pynear,
    pynndescent,
    rabitq,
    rabitqlib,
    scann,
    sklearn,
    voyager,
)

LIBRARIES = {
    "faiss": faiss.LIBRARY,
    "panorama": panorama.LIBRARY,
    "rabitq": rabitq.LIBRARY,
    "hnswlib": hnswlib.LIBRARY,
    "nmslib": nmslib.LIBRARY,
    "voyager": voyager.LIBRARY,
    "annoy": annoy.LIBRARY,
    "scann": scann.LIBRARY,
    "ngt": ngt.LIBRARY,
    "pynndescent": pynndescent.LIBRARY,
    "glass": glass.LIBRARY,
    "annsearch": annsearch.LIBRARY,
    "rabitqlib": rabitqlib.LIBRARY,
    "sklearn": sklearn.LIBRARY,
    "pynear": pynear.LIBRARY,
}
