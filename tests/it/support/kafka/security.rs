//! A broker's doors with TLS, client certificates and SASL, and the ACLs behind them. Who comes in through
//! the plain listener, as the rig does, may do everything.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::tls::{Leaf, TestCa};
use crate::support::{ports, scratch};

/// What a secured broker has besides its plain listeners.
pub struct Security {
    ca: TestCa,
    client: Leaf,
    ports: Ports,
    dir: TempDir,
}

#[derive(Clone, Copy)]
struct Ports {
    tls: u16,
    mutual: u16,
    sasl: u16,
}

/// Who the client certificate and the PLAIN login belong to, as ACLs name them.
pub const CERTIFIED: &str = "certified";
/// The user of SASL PLAIN.
pub const PLAIN: (&str, &str) = ("plain", "plain-s3cr3t");

impl Security {
    /// With certificates of an authority of its own, which no system trusts.
    pub fn new() -> Self {
        let ca = TestCa::new();
        let dir = scratch::dir("kafka-tls");
        let keystore = [&ca.leaf().key, &ca.leaf().cert].map(|path| fs::read(path).expect("our own file"));
        fs::write(dir.path().join("keystore.pem"), keystore.concat()).expect("write keystore.pem");
        Self { client: ca.issue_client(CERTIFIED), ca, ports: Ports::free(), dir }
    }

    /// TLS, and anyone may come in.
    pub fn tls(&self) -> String {
        address(self.ports.tls)
    }

    /// TLS, and a client certificate is demanded.
    pub fn mutual(&self) -> String {
        address(self.ports.mutual)
    }

    /// TLS and SASL, by SCRAM-SHA-512 or PLAIN.
    pub fn sasl(&self) -> String {
        address(self.ports.sasl)
    }

    /// The PEM file of the authority.
    pub fn ca(&self) -> PathBuf {
        self.ca.cert_path()
    }

    /// A certificate that the broker trusts.
    pub fn client(&self) -> &Leaf {
        &self.client
    }

    /// After a clash.
    pub(super) fn take_other_ports(&mut self) {
        self.ports = Ports::free();
    }

    /// Name, protocol and port of each listener.
    pub(super) fn listeners(&self) -> [(&'static str, &'static str, u16); 3] {
        let Ports { tls, mutual, sasl } = self.ports;
        [("TLS", "SSL", tls), ("MUTUAL", "SSL", mutual), ("SASL", "SASL_SSL", sasl)]
    }

    pub(super) fn settings(&self) -> String {
        let keystore = self.file("keystore.pem");
        let (keystore, ca) = (keystore.display(), self.ca.cert_path());
        let ca = ca.display();
        let (user, password) = PLAIN;
        format!(
            "\
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
ssl.principal.mapping.rules=RULE:^.*CN=([^,]+).*$/$1/
listener.name.mutual.ssl.client.auth=required
listener.name.sasl.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}=\"{password}\";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:ANONYMOUS
"
        )
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(self.dir.path()).join(name)
    }
}

impl Ports {
    fn free() -> Self {
        let [tls, mutual, sasl] = std::array::from_fn(|_| ports::free());
        Self { tls, mutual, sasl }
    }
}

fn address(port: u16) -> String {
    // By name: OpenSSL's check of the certificate is by name.
    format!("localhost:{port}")
}
