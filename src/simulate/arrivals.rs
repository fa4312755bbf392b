//! Lines as they arrive: in the order of time, or late, twice and in another order, as networks have it.
//!
//! Stands last of the simulation: what leaves here is what a collector received.
//!
//! Invariant: every line arrives; only players' events arrive twice.
//! Invariant: memory holds what is under way, half a minute of lines at the most.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::random::Random;
use super::{Line, Output, PlayOut, Truth};

/// Stream of random numbers that delays are drawn from.
const DELAYS: u64 = 5;

/// Delays of players' events, ms, and how many of a hundred have them: sent at once, batched, from a train.
const DELAYS_MS: [(u32, u32); 3] = [(50, 900), (900, 5_000), (5_000, 25_000)];
const DELAY_SHARES: [u32; 3] = [85, 13, 2];
/// How far lines of a CDN's servers get out of order.
const CDN_DELAY_MS: u32 = 2_000;
/// Of a thousand events, those that are sent once more, and how much later.
const TWICE_PER_MILLE: u32 = 5;
const AGAIN_AFTER_MS: (u32, u32) = (1_000, 30_000);

/// A line under way: when it arrives, its number, and itself.
type UnderWay = Reverse<(i64, u64, bool, Vec<u8>)>;

/// The lines of a simulation.
pub struct Arrivals {
    playout: PlayOut,
    /// None: everything arrives at once and in order.
    network: Option<Network>,
}

struct Network {
    seed: u64,
    under_way: BinaryHeap<UnderWay>,
    /// The next line to be sent, not drawn yet.
    next: Option<(Line, Vec<u8>)>,
    sent: u64,
    duplicates: u64,
}

impl Arrivals {
    pub(super) fn new(playout: PlayOut, seed: u64, is_lifelike: bool) -> Arrivals {
        let network = is_lifelike.then(|| Network {
            seed,
            under_way: BinaryHeap::new(),
            next: None,
            sent: 0,
            duplicates: 0,
        });
        Arrivals { playout, network }
    }

    /// Puts the next line, newline included, into `text`; nothing when all has arrived. Its time is that of
    /// its arrival.
    pub fn next_line(&mut self, text: &mut Vec<u8>) -> Option<Line> {
        match &mut self.network {
            None => self.playout.next_line(text),
            Some(network) => network.next_line(&mut self.playout, text),
        }
    }

    /// What happened in all sessions that went on air so far.
    pub fn into_truth(self) -> Truth {
        let duplicates = self.network.map_or(0, |network| network.duplicates);
        Truth {
            duplicates,
            ..self.playout.into_truth()
        }
    }
}

impl Network {
    fn next_line(&mut self, playout: &mut PlayOut, text: &mut Vec<u8>) -> Option<Line> {
        loop {
            if self.next.is_none() {
                let mut line_text = Vec::new();
                self.next = playout.next_line(&mut line_text).map(|line| (line, line_text));
            }
            let first_ms = self.under_way.peek().map(|Reverse((arrival_ms, ..))| *arrival_ms);
            // What is sent later cannot arrive earlier than it is sent.
            let is_sent_first = |line: &Line| first_ms.is_none_or(|first_ms| line.time_ms <= first_ms);
            match self.next.take_if(|(line, _)| is_sent_first(line)) {
                Some((line, line_text)) => self.send(line, line_text),
                None => break,
            }
        }
        let Reverse((time_ms, _, is_player, line_text)) = self.under_way.pop()?;
        text.clear();
        text.extend_from_slice(&line_text);
        let output = if is_player { Output::Player } else { Output::Cdn };
        Some(Line { time_ms, output })
    }

    fn send(&mut self, line: Line, text: Vec<u8>) {
        let mut random = Random::of(self.seed, DELAYS, self.sent);
        let is_player = line.output == Output::Player;
        let delay_ms = if is_player {
            let (shortest, longest) = DELAYS_MS[random.weighted(&DELAY_SHARES)];
            random.between(shortest, longest)
        } else {
            random.below(CDN_DELAY_MS)
        };
        let arrival_ms = line.time_ms + i64::from(delay_ms);
        if is_player && random.chance(TWICE_PER_MILLE, 1_000) {
            let again_ms = arrival_ms + i64::from(random.between(AGAIN_AFTER_MS.0, AGAIN_AFTER_MS.1));
            self.put(again_ms, is_player, text.clone());
            self.duplicates += 1;
        }
        self.put(arrival_ms, is_player, text);
    }

    fn put(&mut self, arrival_ms: i64, is_player: bool, text: Vec<u8>) {
        self.under_way.push(Reverse((arrival_ms, self.sent, is_player, text)));
        self.sent += 1;
    }
}
