//! One subscribed connection from its beginning to its end: connects, keeps the subscriptions equal to its table,
//! tries the link now and then.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use redis::{Cmd, FromRedisValue as _, ServerErrorKind, Value, cmd};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connection::{Asker, Dialer, refusal, words};
use super::output_limit::Disconnections;
use super::slots::{self, Node};
use super::streams;
use super::subscriptions::{Subscriptions, Work};
use crate::config::Endpoint;
use crate::hub::Source;
use crate::upstream::Broken;
use crate::upstream::link::Link;

/// The most sources that are asked for in one go.
const AT_ONCE: usize = 512;

/// How long a source that Redis refused, by an ACL for example, waits before it is tried again.
const REFUSED: Duration = Duration::from_secs(5);

/// The same where Redis said that it will pass.
const BUSY: Duration = Duration::from_millis(500);

/// A connection to be.
pub(super) struct Subscriber {
    pub dialer: Dialer,
    pub endpoint: Endpoint,
    pub ping_interval: Duration,
    /// Whether a server that is no master, or no longer, will not do.
    pub must_be_master: bool,
    pub disconnections: Arc<Disconnections>,
}

/// What becomes known on the way.
pub(super) enum News {
    /// The server has been greeted.
    Up,
    /// Everything assigned has been asked for, with whatever outcome.
    Settled,
    /// Slots have left the server.
    Left,
    /// The server has nothing of this slot; that one does.
    Moved(u16, Node),
}

impl News {
    /// Tells a link that consists of one connection.
    pub fn to(self, link: &Link) {
        match self {
            Self::Up => link.up(),
            Self::Settled => link.settled(),
            // Only nodes of a cluster say so.
            Self::Left | Self::Moved(..) => {}
        }
    }
}

impl Subscriber {
    /// Runs until the link ends. The caller then says what is lost: [`Subscriptions::lose_all`].
    pub async fn run(&self, table: &Subscriptions, tell: impl Fn(News)) -> Broken {
        let (asker, incoming) = match self.dialer.dial(&self.endpoint).await {
            Ok(connected) => connected,
            Err(broken) => return broken,
        };
        tokio::select! {
            // What has come in counts first.
            biased;
            broken = incoming.read(|batch| if table.take(&batch) { tell(News::Left) }) => broken,
            result = self.work(asker, table, &tell) => match result {
                Ok(never) => match never {},
                Err(broken) => broken,
            },
        }
    }

    /// The same from when the first subscription is wanted: streams alone need none. `link` is up with it.
    pub async fn run_when_wanted(&self, table: &Subscriptions, link: &Link) -> Broken {
        streams::until_messages_are_wanted(link).await;
        self.run(table, |news| news.to(link)).await
    }

    async fn work(
        &self,
        mut asker: Asker,
        table: &Subscriptions,
        tell: &impl Fn(News),
    ) -> Result<Infallible, Broken> {
        let sent = SystemTime::now();
        asker.greet(&self.endpoint).await?;
        self.check(&mut asker).await?;
        table.alive_at(sent);
        self.look_for_disconnections(&mut asker, table.link()).await?;
        tell(News::Up);
        let asker = Mutex::new(asker);
        tokio::select! {
            result = self.follow(&asker, table, tell) => result,
            result = self.ping(&asker, table) => result,
        }
    }

    /// Tries the link now and then, since a peer that vanished says nothing.
    async fn ping(&self, asker: &Mutex<Asker>, table: &Subscriptions) -> Result<Infallible, Broken> {
        loop {
            tokio::time::sleep(self.ping_interval).await;
            let mut asker = asker.lock().await;
            // Redis answers in order: what it published before this was sent has come in when the answer is here.
            let sent = SystemTime::now();
            self.check(&mut asker).await?;
            table.alive_at(sent);
        }
    }

    /// A ping, and the question what the server is where that matters.
    async fn check(&self, asker: &mut Asker) -> Result<(), Broken> {
        let address = self.endpoint.address();
        if !self.must_be_master {
            return match refusal(&asker.ask(&[]).await?) {
                Some(error) => Err(Broken(format!("Redis at {address} refused a ping: {error}"))),
                None => Ok(()),
            };
        }
        let answers = asker.ask(&[cmd("ROLE")]).await?;
        match answers.first() {
            Some(Value::Array(role)) if !matches!(role.first(), Some(Value::BulkString(r)) if r == b"master") => {
                Err(Broken(format!("Redis at {address} is not the master, or no longer")))
            }
            // One whom ROLE is forbidden relies on the sentinels.
            _ => Ok(()),
        }
    }

    /// Says so if the server counts clients that it cut off, and has done so since the link before this one began.
    async fn look_for_disconnections(&self, asker: &mut Asker, link: &Link) -> Result<(), Broken> {
        let answers = asker.ask(&[cmd("INFO").arg("stats").take()]).await?;
        let info = answers.into_iter().next().and_then(|info| String::from_redis_value(info).ok());
        let address = self.endpoint.address();
        if let Some(cause) = info.and_then(|info| self.disconnections.note(&address, &info)) {
            link.trouble(&cause);
        }
        Ok(())
    }

    /// Keeps the subscriptions equal to the table.
    async fn follow(
        &self,
        asker: &Mutex<Asker>,
        table: &Subscriptions,
        tell: &impl Fn(News),
    ) -> Result<Infallible, Broken> {
        loop {
            let Work { leave, enter, again } = table.work();
            for sources in leave.chunks(AT_ONCE) {
                // A slot that has left refuses, and then there is nothing to leave.
                asker.lock().await.ask(&commands(sources, UNSUBSCRIBE)).await?;
                table.left(sources);
            }
            for sources in enter.chunks(AT_ONCE) {
                self.enter(asker, table, sources, tell).await?;
            }
            tell(News::Settled);
            let retry = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = table.changed() => {}
                () = retry => {}
            }
        }
    }

    /// Subscribes to all of them, or where some are refused to each alone.
    async fn enter(
        &self,
        asker: &Mutex<Asker>,
        table: &Subscriptions,
        sources: &[Source],
        tell: &impl Fn(News),
    ) -> Result<(), Broken> {
        let answers = asker.lock().await.ask(&commands(sources, SUBSCRIBE)).await?;
        if refusal(&answers).is_none() {
            return Ok(());
        }
        for source in sources.iter().filter(|source| table.is_asked(source)) {
            let answers = asker.lock().await.ask(&commands(std::slice::from_ref(source), SUBSCRIBE)).await?;
            let Some(Value::ServerError(error)) = answers.first() else { continue };
            let moved = error.details().filter(|_| error.kind() == Some(ServerErrorKind::Moved));
            if let Some((slot, to)) = moved.and_then(|words| slots::redirected(words, &self.endpoint.host)) {
                table.refused(source, Instant::now() + REFUSED);
                tell(News::Moved(slot, to));
                continue;
            }
            let wait = if passes(error.kind()) { BUSY } else { REFUSED };
            table.refused(source, Instant::now() + wait);
            let (name, address) = (source.name(), self.endpoint.address());
            table
                .link()
                .trouble(&format!("subscribing to {name} at {address} was refused: {}", words(error)));
        }
        Ok(())
    }
}

/// Whether Redis said that it cannot now, and that this will pass.
pub(super) fn passes(kind: Option<ServerErrorKind>) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, TryAgain};
    matches!(kind, Some(BusyLoading | ClusterDown | MasterDown | TryAgain))
}

/// The names of commands for channels, patterns and shard channels.
type Names = [&'static str; 3];
const SUBSCRIBE: Names = ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"];
const UNSUBSCRIBE: Names = ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"];

/// One command for the channels, one for the patterns, and one for each shard channel, since those of one
/// command would have to be of one slot.
fn commands(sources: &[Source], [channels, patterns, shards]: Names) -> Vec<Cmd> {
    let (mut subscribe, mut psubscribe, mut commands) = (cmd(channels), cmd(patterns), Vec::new());
    for source in sources {
        match source {
            Source::Channel(name) => {
                subscribe.arg(&**name);
            }
            Source::Pattern(name) => {
                psubscribe.arg(&**name);
            }
            Source::ShardChannel(name) => commands.push(cmd(shards).arg(&**name).take()),
            // Read beside the subscriptions, or not of Redis at all.
            Source::Stream(_)
            | Source::Topic(_)
            | Source::Keyed(..)
            | Source::Ticker
            | Source::Lines
            | Source::Table(_)
            | Source::Exchange(_)
            | Source::Path(_)
            | Source::Subject(_)
            | Source::Jetstream(..)
            | Source::Filter(..) => {}
        }
    }
    commands.extend([subscribe, psubscribe].into_iter().filter(|command| command.args_iter().len() > 1));
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_for_each_kind_and_one_for_each_shard_channel() {
        let sources = [
            Source::ShardChannel("s1".into()),
            Source::Channel("a".into()),
            Source::Pattern("p*".into()),
            Source::Channel("b".into()),
            Source::ShardChannel("s2".into()),
        ];
        let packed: Vec<String> = commands(&sources, SUBSCRIBE)
            .iter()
            .map(|command| String::from_utf8(command.get_packed_command()).unwrap().replace("\r\n", " "))
            .collect();
        assert_eq!(
            packed,
            [
                "*2 $10 SSUBSCRIBE $2 s1 ",
                "*2 $10 SSUBSCRIBE $2 s2 ",
                "*3 $9 SUBSCRIBE $1 a $1 b ",
                "*2 $10 PSUBSCRIBE $2 p* "
            ]
        );
        assert!(commands(&[], UNSUBSCRIBE).is_empty());
    }
}
