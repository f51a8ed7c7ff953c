//! Devices of other machines: Burn's own client, behind a relay that counts bytes and notices a worker that is lost.

mod address;
mod lost;
mod relay;
mod token;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::remote::{ConnectError, RemoteHost};
use burn::tensor::Device;

use address::Address;
pub use lost::watched;
use relay::{Patience, Relay};
pub use token::{file as token_file, read as read_token};

/// The workers that this process is connected to, and their devices. Both are few.
static RELAYS: Mutex<Vec<Arc<Relay>>> = Mutex::new(Vec::new());
static DEVICES: Mutex<Vec<Device>> = Mutex::new(Vec::new());

/// The device `ws://HOST:PORT#INDEX`, connected.
///
/// # Errors
/// An address of another form, no token, no worker there, or one that refuses the token or lacks that device.
pub fn device(name: &str) -> Result<Device, String> {
    let address = Address::parse(name).map_err(|why| format!("--device {name}: {why}"))?;
    let token = token::read(token::file())?;
    let relay = relay_to(&address)?;
    let host = RemoteHost::websocket(&relay.url()).with_credential(token.text());
    let options = Device::remote_options(&host).device_index(address.index);
    let device = options.init().map_err(|error| {
        locked(&RELAYS).retain(|other| !Arc::ptr_eq(other, &relay));
        relay.close();
        refused(&address, &error, relay.why())
    })?;
    relay.is_in_use();
    let mut devices = locked(&DEVICES);
    if !devices.contains(&device) {
        devices.push(device.clone());
    }
    Ok(device)
}

/// True for a device that [`device`] connected, with or without autodiff.
pub fn is_remote(device: &Device) -> bool {
    locked(&DEVICES).contains(device)
}

/// Bytes sent to all workers and received from them so far; `None` without workers.
pub fn bytes() -> Option<(u64, u64)> {
    let relays = locked(&RELAYS);
    let sum = |of: fn(&Relay) -> u64| relays.iter().map(|relay| of(relay)).sum();
    (!relays.is_empty()).then(|| (sum(Relay::sent), sum(Relay::received)))
}

/// Names the file of the token of this process, once, at its start.
///
/// # Errors
/// None; a program without this feature has one.
pub fn set_token_file(path: &Path) -> Result<(), String> {
    token::set_file(path);
    Ok(())
}

/// Ends all connections, so that workers may end too. For a process that leaves the work to others.
pub fn release() {
    locked(&DEVICES).clear();
    for relay in locked(&RELAYS).drain(..) {
        relay.close();
    }
}

/// The relay to that device: the one that there is, as a run asks for its devices more than once.
fn relay_to(address: &Address) -> Result<Arc<Relay>, String> {
    let mut relays = locked(&RELAYS);
    if let Some(relay) = relays.iter().find(|relay| relay.leads_to(address)) {
        return Ok(relay.clone());
    }
    lost::take_over_panics();
    let relay = Relay::open(address, Patience::default(), lost::set)?;
    relays.push(relay.clone());
    Ok(relay)
}

/// Why the worker did not let this process in. `why`: what the relay saw.
fn refused(address: &Address, error: &ConnectError, why: Option<&str>) -> String {
    match error {
        ConnectError::Unauthorized => format!(
            "the worker at {address} refuses the token of {}; give the one that it was started with",
            token::source()
        ),
        ConnectError::NoSuchDevice { device_count: 1 } => {
            format!(
                "the worker at {address} lends one device, number 0, and not {}",
                address.index
            )
        }
        ConnectError::NoSuchDevice { device_count } => format!(
            "the worker at {address} lends {device_count} devices, numbered from 0, and not {}",
            address.index
        ),
        ConnectError::IncompatibleProtocol { .. } => {
            format!("the worker at {address} is of another release ({error}); build both from the same source")
        }
        _ => {
            let seen = why.map_or_else(|| error.to_string(), str::to_string);
            format!("no worker answers at {address} ({seen}); start one there with: wegeft worker")
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
