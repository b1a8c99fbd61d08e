//! Kafka's own command-line tools, for what rdkafka cannot ask of a broker: users and ACLs.

use std::process::Stdio;

use crate::support::child::{self, Child};

/// The class path, and the broker's plain address.
pub struct Tools {
    pub classpath: String,
    pub bootstrap: String,
}

impl Tools {
    /// Gives a user of SCRAM-SHA-512 this password, and makes the user where there is none.
    pub async fn set_password(&self, user: &str, password: &str) {
        let credential = format!("SCRAM-SHA-512=[iterations=4096,password={password}]");
        let user = ["--entity-type", "users", "--entity-name", user];
        self.run(
            "kafka.admin.ConfigCommand",
            &[&["--alter", "--add-config", &credential][..], &user].concat(),
        )
        .await;
    }

    /// Adds ACLs, or removes them, by which the user may do these `operations` (`Read`, `Describe`) on the topic.
    pub async fn set_acls(&self, what: &str, user: &str, topic: &str, operations: &[&str]) {
        let principal = format!("User:{user}");
        let mut args = vec![what, "--allow-principal", &principal, "--topic", topic];
        operations.iter().for_each(|operation| args.extend(["--operation", operation]));
        if what == "--remove" {
            args.push("--force");
        }
        self.run("kafka.admin.AclCommand", &args).await;
    }

    async fn run(&self, class: &str, args: &[&str]) {
        let mut command = child::command("java");
        command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
        command.args(["-cp", &self.classpath, class, "--bootstrap-server", &self.bootstrap]).args(args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let status = Child::spawn(command).wait_exit(class).await;
        assert!(status.success(), "{class} {args:?}: {status}");
    }
}
