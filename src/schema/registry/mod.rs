//! Schema registries: Confluent's, and those that speak as it does. A schema never changes under its id, so that it is
//! asked for once, by whoever needs it first, and kept.
//!
//! Each registry has a task that asks for what is wanted and again for what it got no answer to. Whoever waits is told at
//! once where the last answer was none: what is held for a schema holds nothing else up. `state` is what is known and
//! wanted, `ask` the questions.

mod ask;
mod state;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::ask::{Asker, Found};
use self::state::State;
use super::{Schema, SchemaId};
use crate::config::{Config, SchemaRegistry};

/// The registries of a configuration, and of those before it as long as somebody needs them.
#[derive(Debug, Default)]
pub struct Registries(RwLock<HashMap<Arc<str>, Arc<Registry>>>);

/// One registry. It is known by its name: another URL under the same name is for its readers the same registry.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    /// The task ends with it.
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    asker: Mutex<Arc<Asker>>,
    state: Mutex<State>,
    /// Something is wanted.
    wanted: Notify,
    /// Something is known that was not, or will not be soon.
    news: watch::Sender<()>,
    /// When it was last said of a schema that it is of no use.
    said: Mutex<Option<Instant>>,
}

/// Schemas that stay at hand as long as this does, whatever else is kept.
#[derive(Debug, Default)]
pub struct Pins(Vec<Arc<Schema>>);

/// How a registry is.
pub struct Standing(pub Value);

impl Registries {
    /// Those that `config` has from now on. One whose settings have changed asks in the new way, and anew where another is
    /// asked.
    pub fn follow(&self, config: &Config) {
        let mut all = self.0.write();
        let before = std::mem::take(&mut *all);
        for settings in &config.schema_registries {
            let registry = match before.get(&settings.name) {
                Some(known) => Arc::clone(known),
                None => Registry::new(settings),
            };
            registry.configure(settings);
            all.insert(Arc::clone(&settings.name), registry);
        }
    }

    /// The one of this name, which the configuration has.
    pub(super) fn of(&self, name: &str) -> Arc<Registry> {
        Arc::clone(self.0.read().get(name).expect("a route names a registry that is there"))
    }

    /// How each is, by name.
    pub fn standing(&self) -> Vec<Standing> {
        let mut all: Vec<_> = self.0.read().values().cloned().collect();
        all.sort_by(|a, b| a.shared.name.cmp(&b.shared.name));
        all.iter().map(|registry| registry.standing()).collect()
    }
}

impl Registry {
    fn new(settings: &SchemaRegistry) -> Arc<Self> {
        let shared = Arc::new(Shared {
            name: Arc::clone(&settings.name),
            asker: Mutex::new(Arc::new(Asker::new(settings))),
            state: Mutex::new(State::new(settings.cache)),
            wanted: Notify::new(),
            news: watch::Sender::new(()),
            said: Mutex::default(),
        });
        Arc::new(Self { shared, task: Mutex::default() })
    }

    fn configure(&self, settings: &SchemaRegistry) {
        let shared = &self.shared;
        let mut asker = shared.asker.lock();
        if asker.settings() != settings {
            let is_another = asker.settings().url != settings.url;
            *asker = Arc::new(Asker::new(settings));
            shared.state.lock().begin_anew(settings.cache, is_another);
            shared.wanted.notify_one();
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// A schema that is at hand.
    pub(super) fn find(&self, id: SchemaId) -> Option<Arc<Schema>> {
        self.shared.state.lock().find(id)
    }

    /// Whether nothing has to be waited for: the schema is at hand, and stays so with `pins`, or it is known to be of no use.
    pub fn has(&self, id: SchemaId, pins: &mut Pins) -> bool {
        let mut state = self.shared.state.lock();
        let Some(schema) = state.find(id) else { return state.is_useless(id) };
        if !pins.0.iter().any(|pinned| Arc::ptr_eq(pinned, &schema)) {
            pins.0.push(schema);
        }
        true
    }

    /// Waits for an answer about each of these.
    ///
    /// # Errors
    /// Why there is none so far. They are asked for all the same, as long as somebody comes back for them.
    pub async fn learn(&self, ids: &[SchemaId], patience: Duration) -> Result<(), String> {
        self.run();
        let shared = &self.shared;
        let mut news = shared.news.subscribe();
        let answered = async {
            loop {
                news.borrow_and_update();
                let left = shared.state.lock().want(ids);
                if !left {
                    return Ok(());
                }
                shared.wanted.notify_one();
                if let Some(cause) = shared.state.lock().trouble(ids) {
                    return Err(format!("schema registry {}: {cause}", shared.name));
                }
                // The sender is this registry's own.
                let _ = news.changed().await;
            }
        };
        match timeout(patience, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("schema registry {}: it has not answered yet", shared.name)),
        }
    }

    /// Begins with asking, where somebody may need it: a configuration that is only looked at asks nobody.
    fn run(&self) {
        let mut task = self.task.lock();
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            *task = Some(tokio::spawn(Arc::clone(&self.shared).run()).abort_handle());
        }
    }

    fn standing(&self) -> Standing {
        let (asker, state) = (Arc::clone(&self.shared.asker.lock()), self.shared.state.lock());
        Standing(json!({
            "name": self.shared.name,
            "url": asker.place(),
            "schemas": state.count(),
            "wanted": state.wanted(),
            "last_error": state.last_error().map(|(error, at)| {
                json!({ "error": error, "at": humantime::format_rfc3339_millis(at).to_string() })
            }),
        }))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.lock().iter().for_each(AbortHandle::abort);
    }
}

impl PartialEq for Registry {
    fn eq(&self, other: &Self) -> bool {
        self.shared.name == other.shared.name
    }
}

impl Eq for Registry {}

impl Hash for Registry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shared.name.hash(state);
    }
}

impl Shared {
    /// Asks for what is wanted, some at a time. Never returns.
    async fn run(self: Arc<Self>) {
        loop {
            let (due, next) = self.state.lock().due(Instant::now(), AT_A_TIME);
            if due.is_empty() {
                let later = async {
                    match next {
                        Some(next) => sleep_until(next).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = self.wanted.notified() => {}
                    () = later => {}
                }
                continue;
            }
            let useless = self.ask(due).await;
            // Whoever makes ids up has the registry asked so often, and not more.
            sleep(USELESS * useless as u32).await;
        }
    }

    /// Asks for these, all at once, and returns how many were of no use.
    async fn ask(&self, due: Vec<SchemaId>) -> usize {
        let asker = Arc::clone(&self.asker.lock());
        let mut questions = JoinSet::new();
        for id in due {
            let asker = Arc::clone(&asker);
            questions.spawn(async move { (id, asker.find(id).await) });
        }
        let mut useless = 0;
        // One that panicked is asked for again.
        while let Some(answer) = questions.join_next().await {
            let Ok((id, found)) = answer else { continue };
            if let Ok(Found::Useless(why)) = &found {
                useless += 1;
                self.say(id, why);
            }
            // What another registry answered says nothing of this one.
            if Arc::ptr_eq(&asker, &self.asker.lock()) {
                self.state.lock().took(id, found, Instant::now());
                self.news.send_replace(());
            }
        }
        useless
    }

    /// Producers decide how often it happens.
    fn say(&self, id: SchemaId, why: &str) {
        let mut said = self.said.lock();
        if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            *said = Some(Instant::now());
            tracing::warn!(registry = &*self.name, schema = %id, why, "what has this schema cannot be decoded");
        }
    }
}

/// Schemas that are asked for at a time.
const AT_A_TIME: usize = 8;
/// The pause after each one that was of no use: 50 of them a second.
const USELESS: Duration = Duration::from_millis(20);
const SAID_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
