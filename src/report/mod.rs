//! Findings as people and programs want them: one file per format.
