//! libFuzzer's entry to [`targets::sse`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::sse::check(bytes));
