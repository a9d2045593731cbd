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
}

impl Exit {
    /// The number the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Findings => 1,
            Self::Trouble => 2,
        }
    }
}
