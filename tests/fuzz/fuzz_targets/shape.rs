//! libFuzzer's entry to [`targets::shape`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::shape::check(bytes));
