#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fashion_knn_fuzz::run("npz", input));
