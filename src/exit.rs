//! The one table of exit codes. Salt, Ansible and CI decide by them, so they never change meaning.

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// 0: clean, or done.
    Clean,
    /// 1: there are findings or differences, or a hand-over was backed out.
    Findings,
    /// 2: wrong usage, or it could not be done.
    Trouble,
    /// 128 and the number of the signal that ended it, as shells have it: 130 for INT, 143 for TERM.
    Interrupted(u8),
}

impl Exit {
    /// How a process ends that nobody but the runtime looks at: it did what it was told, or not.
    pub fn of(code: u8) -> Self {
        if code == 0 { Self::Clean } else { Self::Trouble }
    }

    /// The number the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Findings => 1,
            Self::Trouble => 2,
            Self::Interrupted(signal) => 128_u8.saturating_add(signal),
        }
    }
}
