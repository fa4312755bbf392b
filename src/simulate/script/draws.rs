//! What chance decides of a session: patience, the start, the network's delay.
//!
//! Stands under `script`. Invariant: the plain world draws what it always drew, in the same order.

use super::super::incident::Fault;
use super::Script;

impl Script<'_> {
    pub(super) fn draw_patience_s(&mut self) -> u32 {
        if !self.simulation.lifelike {
            return 20 + self.random.below(100) + self.random.below(100);
        }
        // Who looks around, who watches a piece, who stays.
        let (shortest, longest) = [(10, 50), (40, 200), (200, 600)][self.random.weighted(&[30, 55, 15])];
        self.random.between(shortest, longest)
    }

    pub(super) fn draw_startup_ms(&mut self) -> u32 {
        let slow_network_ms = match self.viewer.connection_type {
            "3g" => 1_200,
            _ => 0,
        };
        let spread_ms = self.random.below(700) + self.random.below(700);
        let slow_isp_ms = self.viewer.isp.startup_more_ms;
        let startup_ms = (250 + spread_ms + slow_network_ms + self.viewer.device.startup_more_ms).saturating_add_signed(slow_isp_ms);
        match self.simulation.lifelike && self.hit_by(Fault::CdnSlowFirstByte, self.start_ms).is_some() {
            // Manifest and first segment wait for it.
            true => startup_ms * 2,
            false => startup_ms,
        }
    }

    pub(super) fn draw_rtt(&mut self) -> u32 {
        match self.viewer.connection_type {
            "3g" => self.random.between(200, 420),
            _ => self.random.between(18, 140),
        }
    }
}
