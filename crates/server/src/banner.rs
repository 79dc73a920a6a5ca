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
    if let Some(admin) = admin {
        writeln!(out, "  metrics   http://{admin}/metrics")?;
    }
    writeln!(out)?;
    writeln!(out, "  produce   echo hello | kcat -P -b {host}:{port} -t greetings")?;
    writeln!(out, "  consume   kcat -C -e -b {host}:{port} -t greetings")?;
    out.flush()
}
