//! libFuzzer's entry to [`targets::proxy_protocol`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::proxy_protocol::check(bytes));
