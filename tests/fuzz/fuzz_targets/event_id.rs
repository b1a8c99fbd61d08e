//! libFuzzer's entry to [`targets::event_id`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::event_id::check(bytes));
