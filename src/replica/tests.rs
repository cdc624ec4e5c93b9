//! Behaviours of one replica, by hand-fed packets.
