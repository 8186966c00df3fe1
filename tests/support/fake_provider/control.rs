//! Waits inside the fake: for a gate to open, for a delay, or for the end, which interrupts every wait.

use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a waiting request checks whether its client has disconnected.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// What requests wait for.
#[derive(Default)]
pub(super) struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The fake is stopping.
    stopping: bool,
    /// Closed gates.
    gates: usize,
    /// How often unanswered requests were released.
    let_go: u64,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// It came to its end.
    Due,
    /// The client closed the connection.
    HungUp,
    /// The fake is stopping.
    Stopping,
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all waits, permanently.
    pub fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
    }

    /// Ends the waits of requests that are never answered.
    pub fn let_go(&self) {
        self.state().let_go += 1;
        self.changed.notify_all();
    }

    /// Closes a gate.
    pub fn hold(self: &Arc<Control>) -> Gate {
        self.state().gates += 1;
        Gate { control: self.clone() }
    }

    /// Waits until no gate is closed.
    pub fn pass_gates(&self, client: &TcpStream) -> Woken {
        self.wait(client, None, |state| state.gates == 0)
    }

    /// How often `let_go` was called.
    pub fn times_let_go(&self) -> u64 {
        self.state().let_go
    }

    /// Waits until `let_go` is called more often than this.
    pub fn wait_for_ever(&self, client: &TcpStream, before: u64) -> Woken {
        self.wait(client, None, |state| state.let_go != before)
    }

    /// Waits this long, and checks meanwhile whether the client is connected.
    pub fn delay(&self, client: &TcpStream, delay: Duration) -> Woken {
        self.wait(client, Some(Instant::now() + delay), |_| false)
    }

    /// Waits this long without checks, for benches.
    pub fn latency(&self, latency: Duration) {
        let state = self.state();
        drop(self.changed.wait_timeout_while(state, latency, |state| !state.stopping));
    }

    fn wait(
        &self,
        client: &TcpStream,
        end: Option<Instant>,
        holds: impl Fn(&State) -> bool,
    ) -> Woken {
        let mut state = self.state();
        loop {
            if state.stopping {
                return Woken::Stopping;
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if holds(&state) || left.is_some_and(|left| left.is_zero()) {
                return Woken::Due;
            }
            drop(state);
            if hung_up(client) {
                return Woken::HungUp;
            }
            state = self.state();
            // An event between the two locks has already sent its signal.
            if state.stopping || holds(&state) {
                continue;
            }
            let slice = left.map_or(BETWEEN_LOOKS, |left| left.min(BETWEEN_LOOKS));
            state =
                self.changed.wait_timeout(state, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Whether the other side closed the connection. A client that waits for an answer sends nothing, except the TLS alert
/// that closes a connection.
fn hung_up(client: &TcpStream) -> bool {
    if client.set_nonblocking(true).is_err() {
        return true;
    }
    let mut record = [0; 1];
    let gone = match client.peek(&mut record) {
        Ok(0) => true,
        // 21 is an alert of TLS 1.2, 23 any record of TLS 1.3.
        Ok(_) => matches!(record[0], 21 | 23),
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    client.set_nonblocking(false).is_err() || gone
}

/// While it exists, requests wait.
pub struct Gate {
    control: Arc<Control>,
}

impl Gate {
    /// Releases them; so does dropping it.
    pub fn release(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut state = self.control.state();
        state.gates -= 1;
        drop(state);
        self.control.changed.notify_all();
    }
}
