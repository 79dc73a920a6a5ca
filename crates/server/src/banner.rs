//! What a person reads after starting a node: where it listens, and lines to copy.

use std::{io, net::SocketAddr, path::Path};

use tidelog_broker::config::Endpoint;

use crate::identity::Identity;

/// Prints where the node listens. Whoever does not read standard output misses nothing else.
pub fn print(
    dir: &Path,
    identity: &Identity,
    told: &Endpoint,
    listening: SocketAddr,
    admin: Option<SocketAddr>,
) {
    let _ = write(&mut io::stdout().lock(), dir, identity, told, listening, admin);
}

fn write(
    out: &mut impl io::Write,
    dir: &Path,
    identity: &Identity,
    told: &Endpoint,
    listening: SocketAddr,
    admin: Option<SocketAddr>,
) -> io::Result<()> {
    let Endpoint { host, port } = told;
    let (cluster_id, node_id) = (identity.cluster_id, identity.node_id);
    writeln!(out, "tidelog {} is ready", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  data      {} (cluster {cluster_id}, node {node_id})", dir.display())?;
    writeln!(out, "  clients   {host}:{port} (listening on {listening})")?;
    if listening.ip().is_unspecified() && host == "localhost" {
        writeln!(out, "            from other machines only with --advertise HOST:{port}")?;
    }
    if let Some(admin) = admin {
        writeln!(out, "  metrics   http://{admin}/metrics")?;
    }
    writeln!(out)?;
    writeln!(out, "  produce   echo hello | kcat -P -b {host}:{port} -t greetings")?;
    writeln!(out, "  consume   kcat -C -e -b {host}:{port} -t greetings")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use tidelog_types::{BrokerId, Uuid};

    use super::*;

    fn printed(host: &str, listening: &str) -> String {
        let uuid = Uuid([1; 16]);
        let node_id = BrokerId(1);
        let identity = Identity { cluster_id: uuid, node_id, directory_id: uuid, raft_id: 1 };
        let told = Endpoint { host: host.to_owned(), port: 9092 };
        let listening = listening.parse().expect("an address");
        let mut out = Vec::new();
        write(&mut out, Path::new("data"), &identity, &told, listening, None).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_node_that_only_its_own_machine_is_told_of_says_so() {
        let hint = "from other machines only with --advertise HOST:9092";
        for (host, listening, hinted) in [
            ("localhost", "0.0.0.0:9092", true),
            ("localhost", "[::]:9092", true),
            ("localhost", "127.0.0.1:9092", false),
            ("kafka-1", "0.0.0.0:9092", false),
        ] {
            assert_eq!(printed(host, listening).contains(hint), hinted, "{host} {listening}");
        }
    }
}
