//! What a full tier does with a block.

use millpond_proto::Profile;

/// How a tier that is full chooses between a block and those that it has.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// S3-FIFO: what is used again stays, what is read once goes.
    #[default]
    ScanResistant,
    /// Admit, then hold: what came first stays for as long as it is returned to. For data sets
    /// that are read over and over and do not fit.
    Hold,
}

impl From<Profile> for Policy {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Default => Self::ScanResistant,
            Profile::Dataset => Self::Hold,
        }
    }
}
