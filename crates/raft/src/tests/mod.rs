//! Whole nodes under test: real threads over a real disk, and stepped ones over disks that fail.

mod sole_voter;
