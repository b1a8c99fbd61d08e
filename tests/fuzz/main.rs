//! The fuzz targets as plain tests, without libFuzzer or a nightly toolchain: each reads its corpus, and a fixed number of
//! inputs near to that, always the same. What fuzzing has found stays found once it is in the corpus.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod mutate;
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use mutate::Mutator;
use targets::{ALL, Target};

#[test]
fn config() {
    replay("config", 4_000);
}

#[test]
fn event_id() {
    replay("event_id", 50_000);
}

#[test]
fn path() {
    replay("path", 30_000);
}

#[test]
fn proxy_protocol() {
    replay("proxy_protocol", 2_000);
}

#[test]
fn shape() {
    replay("shape", 3_000);
}

#[test]
fn sse() {
    replay("sse", 30_000);
}

#[test]
fn ticket() {
    replay("ticket", 10_000);
}

#[test]
fn decode() {
    replay("decode", 40_000);
}

#[test]
fn every_target_has_a_file_a_corpus_and_a_test() {
    let named = |folder: &str| -> BTreeSet<String> {
        let names = fs::read_dir(root().join(folder)).unwrap();
        names.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let all = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(named("fuzz_targets"), all);
    assert_eq!(named("corpus"), all);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for (name, _) in ALL {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not built");
        assert!(include_str!("main.rs").contains(&format!("replay(\"{name}\"")), "{name} has no test");
    }
}

/// Runs a target on each file of its corpus, and on so many inputs made of them.
fn replay(name: &str, changed: usize) {
    let target = ALL.into_iter().find(|(other, _)| *other == name).unwrap();
    let corpus = corpus(name);
    for (file, input) in &corpus {
        run(target, input, file);
    }
    let seeds: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let mut mutator = Mutator::new(&seeds);
    for number in 0..changed {
        run(target, &mutator.input(), &format!("made input {number}"));
    }
}

/// Where the target panics, the input is kept, for `cargo fuzz run` or the corpus.
fn run((name, check): Target, input: &[u8], of: &str) {
    if catch_unwind(AssertUnwindSafe(|| check(input))).is_err() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        fs::write(&kept, input).unwrap();
        panic!("`{name}` fails on {of}, which is kept in {}", kept.display());
    }
}

/// Names and contents of the files of a corpus, in the order of their names.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(root().join("corpus").join(name)).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}
