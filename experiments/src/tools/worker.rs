//! `worker`: lends devices of this machine to trainings on others, by Burn's own server.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, ValueHint};

/// Lend this machine's devices to trainings on other machines
///
/// A training elsewhere names them ws://HOST:PORT#0, ws://HOST:PORT#1 and so on, in --devices or --device, and gives the
/// same token. The connection is not encrypted: leave --listen as it is and reach the worker through a tunnel, or use a
/// network that you trust. The program must be built with the feature `remote`.
#[derive(Debug, Parser)]
pub struct Args {
    /// Device to lend; several, separated by commas, are numbered in this order.
    #[arg(long, help_heading = "Run", value_delimiter = ',', default_value = crate::cli::device::DEFAULT)]
    pub device: Vec<String>,
    /// Port to listen on; 0 for any that is free.
    #[arg(long, help_heading = "Run", default_value_t = 3000)]
    pub port: u16,
    /// Address to listen on; 0.0.0.0 for all networks of this machine.
    #[arg(long, help_heading = "Run", value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub listen: IpAddr,
    /// File with the token that trainings must give [default: the variable WEGEFT_TOKEN].
    #[arg(long, help_heading = "Run", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
}

/// Lends the devices until Ctrl-C.
///
/// # Errors
/// A device that there is not, no token, a port that is taken.
#[cfg(feature = "remote")]
pub fn worker(args: &Args) -> Result<(), String> {
    use std::net::{SocketAddr, TcpListener};

    use burn::server::{RemoteServer, TokenAuthorizer, WebSocketTransport};

    use crate::cli::device::device;
    use crate::cli::output::{note, print};
    use crate::cli::remote::{is_remote, read_token};

    let token = read_token(args.token_file.as_deref())?;
    let mut devices = Vec::new();
    for name in &args.device {
        let found = device(name.trim())?;
        if is_remote(&found) {
            return Err(format!("--device {name}: a worker lends devices of its own machine"));
        }
        devices.push(found);
    }
    let kind = |name: &str| name.trim().split(':').next().unwrap_or_default().to_string();
    if args.device.iter().any(|name| kind(name) != kind(&args.device[0])) {
        let given = args.device.join(",");
        return Err(format!(
            "--device {given}: a worker lends devices of one backend; start another for the others"
        ));
    }
    let authorizer = TokenAuthorizer::new(token.text()).map_err(|e| e.to_string())?;
    let wanted = SocketAddr::new(args.listen, args.port);
    let no_port = |e: std::io::Error| format!("cannot listen on {wanted} ({e}); choose another --port or --listen");
    let listener = TcpListener::bind(wanted).map_err(no_port)?;
    let address = listener.local_addr().map_err(no_port)?;
    if !args.listen.is_loopback() {
        note("the connection is not encrypted: whoever reads this network reads the token and the data");
    }
    for (index, name) in args.device.iter().enumerate() {
        print(format_args!("lending {} as ws://{address}#{index}", name.trim()))?;
    }
    let server = RemoteServer::new(devices).with_authorizer(authorizer);
    let served = server.serve(WebSocketTransport::from_listener(listener));
    served.map_err(|e| format!("--device {}: {e}", args.device.join(",")))
}

/// Says how to build a program that can.
///
/// # Errors
/// Always.
#[cfg(not(feature = "remote"))]
pub fn worker(_args: &Args) -> Result<(), String> {
    Err(format!(
        "this program was built without devices of other machines; run: {}",
        crate::cli::program::built_with("remote").trim_end()
    ))
}

#[cfg(test)]
#[cfg(not(feature = "remote"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_the_feature_says_how_to_build_one_with_it() {
        let message = worker(&Args::parse_from(["worker"])).unwrap_err();
        assert!(
            message.contains("cargo run -p experiments --features remote"),
            "{message}"
        );
        // Nothing is lent to other machines unless that is asked for.
        assert!(Args::parse_from(["worker"]).listen.is_loopback());
    }
}
