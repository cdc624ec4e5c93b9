//! Simulation: the real code on virtual time, disks and networks, from one seed.

mod disk;
mod journal;
mod rng;
