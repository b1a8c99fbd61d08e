//! What is asked of the real broker beside producing: topics, partitions, trimming, a sign of life.

use std::io;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::net::TcpStream;

use crate::support::wait::{DEADLINE, eventually};

/// Succeeds once the broker serves metadata that names itself.
pub async fn ping(bootstrap: &str) -> io::Result<()> {
    // librdkafka logs every refusal and backs off: not before the port is open.
    TcpStream::connect(bootstrap).await?;
    let brokers =
        metadata(bootstrap, |client| Ok(client.inner().fetch_metadata(None, DEADLINE)?.brokers().len()));
    match brokers.await.map_err(io::Error::other)? {
        0 => Err(io::Error::other("no broker has registered")),
        _ => Ok(()),
    }
}

pub async fn create_topic(bootstrap: &str, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    topic.config = settings.to_vec();
    let results = client(bootstrap).create_topics([&topic], &options()).await.expect("create_topics");
    results[0].as_ref().expect("the topic is new");
    until_led(bootstrap, name, partitions as usize).await;
}

pub async fn delete_topic(bootstrap: &str, name: &str) {
    let results = client(bootstrap).delete_topics(&[name], &options()).await.expect("delete_topics");
    results[0].as_ref().expect("the topic existed");
    eventually(&format!("{name} to be gone"), async || match led_partitions(bootstrap, name).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err("it is still there".into()),
        Err(error) => Err(error.to_string()),
    })
    .await;
}

pub async fn add_partitions(bootstrap: &str, name: &str, total: usize) {
    let partitions = NewPartitions::new(name, total);
    let results =
        client(bootstrap).create_partitions([&partitions], &options()).await.expect("create_partitions");
    results[0].as_ref().expect("more partitions than before");
    until_led(bootstrap, name, total).await;
}

pub async fn delete_records(bootstrap: &str, topic: &str, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a valid offset");
    // A client that has just begun may not know the partition's leader yet.
    eventually("records to be deleted", async || {
        let results = client(bootstrap).delete_records(&list, &options()).await?;
        results.elements().iter().try_for_each(|element| element.error())
    })
    .await;
}

pub async fn set_topic(bootstrap: &str, topic: &str, settings: &[(&str, &str)]) {
    let of_topic = AlterConfig::new(ResourceSpecifier::Topic(topic));
    let change = settings.iter().fold(of_topic, |change, (setting, value)| change.set(setting, value));
    eventually("a topic to be changed", async || {
        let results = client(bootstrap).alter_configs([&change], &options()).await;
        match results.map_err(|error| error.to_string())?.remove(0) {
            Ok(_) => Ok(()),
            Err((_, code)) => Err(code.to_string()),
        }
    })
    .await;
}

async fn until_led(bootstrap: &str, name: &str, partitions: usize) {
    eventually(&format!("{partitions} leaders for {name}"), async || {
        match led_partitions(bootstrap, name).await {
            Ok(Some(led)) if led == partitions => Ok(()),
            Ok(led) => Err(format!("{led:?}")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

/// How many partitions of the topic have a leader; `None` where there is no such topic. Lists all
/// topics: asking for one by name would have librdkafka wait for it.
async fn led_partitions(bootstrap: &str, name: &str) -> KafkaResult<Option<usize>> {
    let name = name.to_owned();
    metadata(bootstrap, move |client| {
        let metadata = client.inner().fetch_metadata(None, DEADLINE)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
        Ok(topic.map(|topic| topic.partitions().iter().filter(|p| p.leader() >= 0).count()))
    })
    .await
}

type Admin = AdminClient<DefaultClientContext>;

async fn metadata<T: Send + 'static>(
    bootstrap: &str,
    ask: impl FnOnce(&Admin) -> Result<T, KafkaError> + Send + 'static,
) -> KafkaResult<T> {
    let bootstrap = bootstrap.to_owned();
    tokio::task::spawn_blocking(move || ask(&client(&bootstrap))).await.expect("no panic")
}

fn client(bootstrap: &str) -> Admin {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("an admin client")
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE))
}
