//! A relay on this machine between Burn's client and one device of a worker. Through it the program counts bytes, and ends
//! the connection when the worker has stopped: Burn itself waits for an answer as long as the network does not fail.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{sleep, spawn};
use std::time::Duration;

use super::address::Address;
use super::locked;

/// How long a worker may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until it accepts a connection.
    pub connect: Duration,
    /// Between two questions whether it is still there.
    pub every: Duration,
    /// Until it answers one. It does so while it computes, however slow its device is.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            every: Duration::from_secs(10),
            answer: Duration::from_secs(60),
        }
    }
}

/// Hears why the worker is lost.
type Lost = fn(&str);

/// See the module.
pub struct Relay {
    to: Address,
    port: u16,
    patience: Patience,
    lost: Lost,
    sent: AtomicU64,
    received: AtomicU64,
    /// Until the worker has let Burn's client in, its end is no loss.
    in_use: AtomicBool,
    closed: AtomicBool,
    why: OnceLock<String>,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// The relay to a worker that accepts connections. `lost` hears, at most once, that it stopped while it was in use.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn open(to: &Address, patience: Patience, lost: Lost) -> Result<Arc<Self>, String> {
        connect(to, patience.connect)
            .map_err(|e| format!("no worker answers at {to} ({e}); start one there with: wegeft worker"))?;
        let no_relay = |e: std::io::Error| format!("cannot listen on this machine's own address: {e}");
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(no_relay)?;
        let relay = Arc::new(Self {
            to: to.clone(),
            port: listener.local_addr().map_err(no_relay)?.port(),
            patience,
            lost,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            in_use: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            why: OnceLock::new(),
            sockets: Mutex::default(),
        });
        let accepting = relay.clone();
        spawn(move || {
            for client in listener.incoming() {
                if accepting.closed.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(client) = client {
                    accepting.join(client);
                }
            }
        });
        let asking = relay.clone();
        spawn(move || asking.ask());
        Ok(relay)
    }

    /// What Burn's client connects to.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// True if it leads to that device.
    pub fn leads_to(&self, address: &Address) -> bool {
        self.to == *address
    }

    /// From now on, its end is a loss.
    pub fn is_in_use(&self) {
        self.in_use.store(true, Ordering::SeqCst);
    }

    /// Why it ended, if not by this process.
    pub fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// Bytes sent to the worker.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Bytes received from it.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    /// Ends all its connections.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for socket in locked(&self.sockets).drain(..) {
            // One that has ended is fine too.
            let _ = socket.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }

    /// The worker is lost: that is told before Burn's client can see it.
    fn lose(&self, why: &str) {
        if !self.closed.swap(true, Ordering::SeqCst) {
            let sentence = self.why.get_or_init(|| format!("the worker at {} {why}", self.to));
            if self.in_use.load(Ordering::SeqCst) {
                (self.lost)(sentence);
            }
        }
        self.close();
    }

    /// Connects `client` to the worker and carries bytes both ways until one of them ends it.
    fn join(self: &Arc<Self>, client: TcpStream) {
        let joined = connect(&self.to, self.patience.connect).and_then(|worker| {
            // Small messages go at once: the next one may wait for the answer.
            client.set_nodelay(true)?;
            worker.set_nodelay(true)?;
            let pair = |worker: &TcpStream| Ok::<_, std::io::Error>((client.try_clone()?, worker.try_clone()?));
            Ok((pair(&worker)?, pair(&worker)?, worker))
        });
        let (up, down, worker) = match joined {
            Ok(joined) => joined,
            Err(error) => return self.lose(&format!("accepts no connection any more ({error})")),
        };
        locked(&self.sockets).extend([client, worker]);
        // Burn's client may end a connection; then the worker's side of it ends too, and no worker is lost.
        let left = Arc::new(AtomicBool::new(false));
        let (relay, leaves) = (self.clone(), left.clone());
        spawn(move || match carry(&up.0, &up.1, &relay.sent) {
            End::Source(_) => {
                leaves.store(true, Ordering::SeqCst);
                let _ = up.1.shutdown(Shutdown::Both);
            }
            End::Target(error) => relay.lose(&format!("broke the connection ({error})")),
        });
        let relay = self.clone();
        spawn(move || match carry(&down.1, &down.0, &relay.received) {
            _ if left.load(Ordering::SeqCst) => {}
            End::Source(None) => relay.lose("closed the connection"),
            End::Source(Some(error)) => relay.lose(&format!("broke the connection ({error})")),
            End::Target(_) => drop(down.1.shutdown(Shutdown::Both)),
        });
    }

    /// Asks the worker now and then whether it is still there: a machine without power, or a process that is stopped,
    /// closes nothing.
    fn ask(&self) {
        loop {
            sleep(self.patience.every);
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            if let Err(error) = self.answers() {
                let why = match error.kind() {
                    ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                        format!("has not answered for {} s", self.patience.answer.as_secs())
                    }
                    _ => format!("does not answer any more ({error})"),
                };
                return self.lose(&why);
            }
        }
    }

    /// Any answer will do; workers have no page.
    fn answers(&self) -> std::io::Result<()> {
        let mut worker = connect(&self.to, self.patience.answer)?;
        worker.set_read_timeout(Some(self.patience.answer))?;
        worker.set_write_timeout(Some(self.patience.answer))?;
        worker.write_all(b"GET / HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n")?;
        match worker.read(&mut [0; 64])? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// How the carrying ended: at the socket that is read, by its end or by an error, or at the one that is written.
enum End {
    Source(Option<std::io::Error>),
    Target(std::io::Error),
}

/// Carries bytes `from` one socket `to` another until one ends.
fn carry(mut from: &TcpStream, mut to: &TcpStream, count: &AtomicU64) -> End {
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return End::Source(None),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return End::Source(Some(error)),
        };
        // Before they are there: whoever waits for them may look at the count next.
        count.fetch_add(read as u64, Ordering::SeqCst);
        if let Err(error) = to.write_all(&buffer[..read]) {
            return End::Target(error);
        }
    }
}

/// Connects to the first address of the host that answers.
fn connect(to: &Address, patience: Duration) -> std::io::Result<TcpStream> {
    let mut last = ErrorKind::NotFound.into();
    for address in (to.host.as_str(), to.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const QUICK: Patience = Patience {
        connect: Duration::from_millis(500),
        every: Duration::from_millis(20),
        answer: Duration::from_millis(200),
    };

    /// A patience that asks nothing within a test.
    const CALM: Patience = Patience {
        every: Duration::from_secs(3600),
        ..QUICK
    };

    fn address(listener: &TcpListener) -> Address {
        Address::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap()
    }

    fn client(relay: &Relay) -> TcpStream {
        let stream = TcpStream::connect(relay.url().strip_prefix("ws://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// What a relay said; its hearer cannot hold a channel, so each test has one of its own.
    macro_rules! hearer {
        () => {{
            static HEARD: Mutex<Option<Sender<String>>> = Mutex::new(None);
            let (sender, heard): (_, Receiver<String>) = channel();
            *locked(&HEARD) = Some(sender);
            let lost: Lost = |why| locked(&HEARD).as_ref().unwrap().send(why.into()).unwrap();
            (lost, heard)
        }};
    }

    #[test]
    fn bytes_go_both_ways_and_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (lost, heard) = hearer!();
        let relay = Relay::open(&address(&listener), CALM, lost).unwrap();
        drop(listener.accept().unwrap()); // the question whether anybody is there
        let mut client = client(&relay);
        let (mut worker, _) = listener.accept().unwrap();
        client.write_all(b"abc").unwrap();
        let mut found = [0; 3];
        worker.read_exact(&mut found).unwrap();
        assert_eq!(&found, b"abc");
        worker.write_all(b"defgh").unwrap();
        let mut found = [0; 5];
        client.read_exact(&mut found).unwrap();
        assert_eq!(&found, b"defgh");
        // A client that ends is no lost worker.
        drop(client);
        assert_eq!(worker.read(&mut found).unwrap(), 0);
        assert_eq!((relay.sent(), relay.received()), (3, 5));
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn a_worker_that_ends_is_told_before_the_client_sees_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (lost, heard) = hearer!();
        let relay = Relay::open(&address(&listener), CALM, lost).unwrap();
        drop(listener.accept().unwrap());
        let mut client = client(&relay);
        let worker = listener.accept().unwrap();
        relay.is_in_use();
        drop(worker);
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
        let message = heard.try_recv().unwrap();
        assert!(message.contains(&address(&listener).to_string()), "{message}");
        assert!(message.contains("closed the connection"), "{message}");
    }

    #[test]
    fn a_worker_that_accepts_and_never_answers_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (lost, heard) = hearer!();
        // Time enough to connect on a busy machine.
        let patience = Patience {
            every: Duration::from_secs(1),
            ..QUICK
        };
        let relay = Relay::open(&address(&listener), patience, lost).unwrap();
        relay.is_in_use();
        let mut client = client(&relay);
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
        let message = heard.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(message.contains("has not answered for"), "{message}");
    }

    #[test]
    fn a_worker_that_lets_nobody_in_is_not_lost_and_the_reason_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (lost, heard) = hearer!();
        let relay = Relay::open(&address(&listener), CALM, lost).unwrap();
        drop(listener.accept().unwrap());
        let mut client = client(&relay);
        drop(listener.accept().unwrap());
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
        assert!(
            relay.why().unwrap().contains("closed the connection"),
            "{:?}",
            relay.why()
        );
        assert!(heard.try_recv().is_err());
    }

    #[test]
    fn where_nobody_listens_one_sentence_names_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = address(&listener);
        drop(listener);
        let message = Relay::open(&address, QUICK, |_| ()).map(drop).unwrap_err();
        assert!(
            message.starts_with(&format!("no worker answers at {address} (")),
            "{message}"
        );
        assert!(message.contains("wegeft worker"), "{message}");
    }

    #[test]
    fn a_closed_relay_loses_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (lost, heard) = hearer!();
        let relay = Relay::open(&address(&listener), CALM, lost).unwrap();
        let mut client = client(&relay);
        relay.close();
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
        assert!(heard.try_recv().is_err());
    }
}
