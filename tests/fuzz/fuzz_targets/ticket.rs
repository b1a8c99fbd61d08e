//! libFuzzer's entry to [`targets::ticket`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::ticket::check(bytes));
