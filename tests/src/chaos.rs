//! Faults under load, and afterwards the load generator's own log against Postgres, row by row.
//!
//! A [`Plan`] is replayable: its seed chooses faults and moments. Clients send numbered requests at a steady rate, one
//! connection each, and note of every request whether its response came completely, and when. The faults are noted with
//! their moments. At the end a client of its own reads the rows: every complete response must be stored exactly once.
//! What may be missing, and which requests may have failed, is only what a killed worker had in its hands ([`Verdict`]).

mod clients;
mod faults;
mod rows;
mod verdict;

use std::time::{Duration, Instant};

use self::{clients::Clients, faults::Faults};
pub use self::{
    clients::{Asked, Outcome},
    faults::{Fault, Struck},
    verdict::Verdict,
};
use crate::{Dice, LONG_ENOUGH, RawOrigin, World, eventually_within};

/// What happens in a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Chooses faults and moments.
    pub seed: u64,
    /// Faults that strike, one after the other.
    pub faults: usize,
    /// They are chosen from these.
    pub kinds: Vec<Fault>,
    /// Between the end of one fault and the next: at least this, and at most so much more.
    pub pause: (Duration, Duration),
    /// Requests a second, of all clients.
    pub rate: u32,
    /// Clients, a connection each.
    pub clients: usize,
    /// More arguments of `proxyctl proxy create`.
    pub settings: Vec<String>,
}

impl Plan {
    /// Runs it in a world of its own, which it starts.
    pub fn run(&self) -> Verdict {
        let mut world = World::start();
        let body = "x".repeat(1_024);
        let origin = RawOrigin::answering(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let (id, address) = self.proxy(&world);
        let clients = Clients::start(self.clients, self.rate, &address, &origin);
        let mut dice = Dice::new(self.seed);
        let mut faults = Faults::new(&id);
        let (least, more) = self.pause;
        for _ in 0..self.faults {
            let more = dice.below(u64::try_from(more.as_millis()).unwrap_or_default() + 1);
            std::thread::sleep(least + Duration::from_millis(more));
            let fault = *dice.of(&self.kinds);
            faults.strike(fault, &mut world, &mut dice);
        }
        std::thread::sleep(least);
        let asked = clients.stop();
        let ended = Instant::now();
        let restarts = faults.settle(&mut world);
        let expected = asked.iter().filter(|asked| asked.outcome == Outcome::Complete).count();
        let mut newest = (0, Instant::now());
        // Until everything is there, or nothing has come for a while.
        let rows = eventually_within(LONG_ENOUGH * 10, "ingest has come to its end", || {
            let rows = rows::read(&world, &id);
            if rows.len() != newest.0 {
                newest = (rows.len(), Instant::now());
            }
            let settled = newest.1.elapsed() > LONG_ENOUGH / 3;
            (rows.len() >= expected || settled).then_some(rows)
        });
        Verdict::new(
            self.seed,
            &asked,
            &faults.into_struck(),
            &rows,
            ended.elapsed(),
            &restarts,
        )
    }

    /// Its id and address. Not through the DSL's `Proxy`, which would keep the world from being killed.
    fn proxy(&self, world: &World) -> (String, String) {
        let _ = world.proxyctl(["workspace", "create", "chaos"]).ok();
        let create = ["-o", "json", "proxy", "create", "target", "-w", "chaos", "--start"];
        let settings = self.settings.iter().map(String::as_str);
        let made = world.proxyctl(create.into_iter().chain(settings)).json();
        let id = made["id"].as_str().expect("a proxy has an id").to_owned();
        (id, format!("127.0.0.1:{}", made["port"]))
    }
}
