"""The real libraries, measured on the same vectors and queries as ours: `make peers`.

`__main__` is the command line; `processes` runs each library in a process of its own; `measuring`
takes the times and counts the recall; `task` builds an index, or loads one that was kept;
`environment` sets threads and BLAS and checks them; `libraries` lists the libraries, and `sift1m`
those of the table of a million descriptors. Every other file is one library.
"""
