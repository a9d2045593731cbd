//! Chance that is the same each time.

/// Numbers that follow from a seed, a service and a step, and from nothing that happens: so each step can be done again alone.
pub(crate) struct Dice(u64);

impl Dice {
    /// The dice of one step.
    pub(crate) fn of(seed: u64, service: usize, step: u32) -> Self {
        let mut dice = Self(seed ^ (service as u64) << 56 ^ u64::from(step) << 24);
        dice.roll();
        dice
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..count`.
    pub(crate) fn below(&mut self, count: u32) -> u32 {
        (((self.roll() >> 32) * u64::from(count)) >> 32) as u32
    }

    /// One of them.
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u32) as usize]
    }

    /// One of them, each as often as its weight says.
    pub(crate) fn weighed<T: Copy>(&mut self, all: &[(u32, T)]) -> T {
        let mut left = self.below(all.iter().map(|(weight, _)| weight).sum());
        for (weight, one) in all {
            if left < *weight {
                return *one;
            }
            left -= weight;
        }
        all[0].1
    }
}
