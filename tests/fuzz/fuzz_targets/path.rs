//! libFuzzer's entry to [`targets::path`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::path::check(bytes));
