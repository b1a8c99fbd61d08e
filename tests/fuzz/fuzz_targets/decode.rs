//! libFuzzer's entry to [`targets::decode`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::decode::check(bytes));
