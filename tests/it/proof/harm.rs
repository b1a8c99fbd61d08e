//! What faults do to a broker, and to the link of the first replica to it: the same for brokers of every kind.

use tokio::time::sleep;

use super::faults::Fault;
use crate::support::kafka::Kafka;
use crate::support::mqtt::Mosquitto;
use crate::support::nats::Nats;
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::support::redis::Redis;

/// A broker of the rig.
pub trait Broker {
    /// SIGKILL.
    fn kill(&mut self);

    /// Starts it again on the same port, and waits until it answers.
    async fn restart(&mut self);

    /// SIGSTOP.
    fn pause(&mut self);

    /// SIGCONT.
    fn resume(&mut self);
}

/// Does one fault. When it returns, the broker is well again.
pub async fn harm(broker: &mut impl Broker, link: &Proxy, fault: Fault) {
    match fault {
        Fault::BrokerKilled(down) => {
            broker.kill();
            sleep(down).await;
            broker.restart().await;
        }
        Fault::BrokerStopped(pause) => {
            broker.pause();
            sleep(pause).await;
            broker.resume();
        }
        other => harm_link(link, other).await,
    }
}

/// Does one fault of the link.
pub async fn harm_link(link: &Proxy, fault: Fault) {
    match fault {
        Fault::LinkReset => link.cut_all(),
        Fault::LinkSilent(pause) => {
            link.pause();
            sleep(pause).await;
            link.resume();
        }
        other => panic!("{other:?} is not on the menu"),
    }
}

/// Each has these of its own.
macro_rules! brokers {
    ($($broker:ident),*) => {$(
        impl Broker for $broker {
            fn kill(&mut self) {
                $broker::kill(self);
            }

            async fn restart(&mut self) {
                $broker::restart(self).await;
            }

            fn pause(&mut self) {
                $broker::pause(self);
            }

            fn resume(&mut self) {
                $broker::resume(self);
            }
        }
    )*};
}

brokers!(Kafka, Mosquitto, Nats, Postgres, RabbitMq, Redis);
