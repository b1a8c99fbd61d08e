//! What is kept, forgotten and asked for, without a registry: real ones are asked in `tests/it/decode.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, advance};

use super::ask::{Fetched, Found};
use super::state::State;
use super::*;
use crate::config::testing_registry;

fn id(number: u32) -> SchemaId {
    SchemaId::Number(number)
}

fn schema(size: usize) -> Result<Found, String> {
    Ok(Found::Schema(Fetched { schema: Schema::Json, size }))
}

fn useless() -> Result<Found, String> {
    Ok(Found::Useless("unknown".to_owned()))
}

fn due(state: &mut State) -> Vec<SchemaId> {
    state.due(Instant::now(), 1_000).0
}

/// The registry of a configuration, which nothing listens for.
fn unreachable() -> Arc<Registry> {
    let registry = Registry::new(&testing_registry("http://127.0.0.1:1"));
    registry.configure(&testing_registry("http://127.0.0.1:1"));
    registry
}

#[tokio::test(start_paused = true)]
async fn a_schema_is_asked_for_once_however_many_want_it() {
    let mut state = State::new(10);
    for _ in 0..3 {
        assert!(state.want(&[id(1), id(2)]));
    }
    assert_eq!(due(&mut state).len(), 2);
    state.took(id(1), schema(1), Instant::now());
    assert!(state.find(id(1)).is_some() && state.find(id(2)).is_none());
    assert!(!state.want(&[id(1)]));
    assert_eq!(due(&mut state), [id(2)]);
    advance(Duration::from_secs(59)).await;
    state.want(&[id(3)]);
    advance(Duration::from_secs(1)).await;
    assert_eq!(due(&mut state), [id(3)], "nobody came back for the other");
}

#[tokio::test(start_paused = true)]
async fn what_is_needed_least_makes_way_unless_it_is_pinned() {
    let mut state = State::new(2);
    for number in 1..=2 {
        state.took(id(number), schema(1), Instant::now());
    }
    let pinned = state.find(id(2)).unwrap();
    state.find(id(1));
    state.took(id(3), schema(1), Instant::now());
    assert_eq!(state.count(), 2);
    assert!(state.find(id(1)).is_some() && state.find(id(3)).is_some());
    assert!(Arc::ptr_eq(&state.find(id(2)).unwrap(), &pinned), "somebody has it at hand");
    drop(pinned);
    assert!(state.find(id(2)).is_none());
    state.took(id(4), schema(60 << 20), Instant::now());
    state.took(id(5), schema(60 << 20), Instant::now());
    assert_eq!(state.count(), 1, "their text has a bound, too");
}

#[tokio::test(start_paused = true)]
async fn ids_that_are_made_up_take_little_room_and_are_forgotten() {
    let mut state = State::new(10);
    for number in 0..20_000 {
        state.took(id(number), useless(), Instant::now());
    }
    let known = |state: &State| (0..20_000).filter(|&number| state.is_useless(id(number))).count();
    assert_eq!(known(&state), 10_000);
    assert!(!state.want(&[id(19_999)]) && state.want(&[id(0)]));
    advance(Duration::from_secs(30)).await;
    assert_eq!(known(&state), 0, "one may be given out by then");
    let all: Vec<_> = (0..20_000).map(id).collect();
    state.want(&all);
    assert_eq!(state.wanted(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_answer_is_asked_for_again_later_and_later() {
    let mut state = State::new(10);
    state.want(&[id(1)]);
    let began = Instant::now();
    for _ in 0..8 {
        assert_eq!(due(&mut state), [id(1)]);
        state.took(id(1), Err("refused".to_owned()), Instant::now());
        assert_eq!(state.trouble(&[id(1)]).as_deref(), Some("refused"));
        assert_eq!(state.trouble(&[id(2)]).as_deref(), Some("refused"), "whoever comes now is told at once");
        state.want(&[id(1)]);
        assert_eq!(due(&mut state), []);
        let (_, next) = state.due(Instant::now(), 1_000);
        advance(next.unwrap() - Instant::now()).await;
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(17) && took < Duration::from_secs(36), "{took:?}");
    state.took(id(1), Err("refused".to_owned()), Instant::now());
    state.want(&[id(2)]);
    assert_eq!(due(&mut state), []);
    advance(Duration::from_secs(1)).await;
    assert!(due(&mut state).contains(&id(2)), "what is new may fare better");
    state.took(id(1), schema(1), Instant::now());
    assert_eq!(state.trouble(&[id(3)]), None, "it is back");
}

#[tokio::test(start_paused = true)]
async fn another_registry_knows_other_schemas_by_the_same_ids() {
    let mut state = State::new(10);
    state.took(id(1), schema(1), Instant::now());
    state.want(&[id(2)]);
    state.took(id(2), Err("refused".to_owned()), Instant::now());
    state.begin_anew(10, false);
    assert!(state.find(id(1)).is_some());
    assert_eq!((state.trouble(&[id(2)]), due(&mut state)), (None, vec![id(2)]), "it is asked at once");
    state.begin_anew(10, true);
    assert!(state.find(id(1)).is_none());
    assert_eq!(state.wanted(), 1);
}

#[tokio::test]
async fn who_waits_for_a_registry_that_is_away_is_told_why() {
    let registry = unreachable();
    let told = registry.learn(&[id(1)], Duration::from_secs(60)).await.unwrap_err();
    assert!(told.starts_with("schema registry main: ") && told.contains("refused"), "{told}");
    let mut pins = Pins::default();
    assert!(!registry.has(id(1), &mut pins));
    let shown = registry.standing().0;
    assert_eq!((&shown["name"], &shown["wanted"]), (&"main".into(), &1.into()));
    assert!(shown["last_error"]["error"].as_str().unwrap().contains("refused"), "{shown}");
}
