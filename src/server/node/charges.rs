//! What clients are charged: the budgets of sessions, profiles and networks for requests, pages, names and
//! channels, and the network where each session's client has proved to receive.
//!
//! Nothing here knows what is charged or which sessions are live: the caller gives the cost, in the units of
//! [`cost`](crate::server::cost), and the profile.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use recado_proto::id::{Moment, Name, SessionId};

use crate::config::Limits;
use crate::fair::Network;
use crate::server::budget::Budgets;

/// Maximum number of networks with a bucket, in each of the tables for requests, names claimed, and channels
/// made. When a table is full, a further network waits until a bucket is full again and is removed.
const NETWORKS_MAX: usize = 65_536;

/// The networks of sessions, and all budgets.
#[derive(Debug)]
pub(super) struct Charges {
    /// The network where each session's client has proved to receive.
    networks: BTreeMap<SessionId, Network>,
    /// Budgets for requests: of sessions, their profiles and their networks. All sessions without a proved
    /// network share the budget of one (`None`), so a client that forges its address gets no more than
    /// that.
    session_requests: Budgets<SessionId>,
    profile_requests: Budgets<Name>,
    network_requests: Budgets<Option<Network>>,
    /// Budgets for names claimed and channels made, by network.
    names: Budgets<Network>,
    channels: Budgets<Option<Network>>,
}

impl Charges {
    pub(super) fn new(limits: &Limits) -> Charges {
        Charges {
            networks: BTreeMap::new(),
            session_requests: Budgets::new(limits.session_requests, limits.sessions),
            profile_requests: Budgets::new(limits.profile_requests, limits.profiles),
            network_requests: Budgets::new(limits.network_requests, NETWORKS_MAX),
            names: Budgets::new(limits.network_names, NETWORKS_MAX),
            channels: Budgets::new(limits.network_channels, NETWORKS_MAX),
        }
    }

    /// Records that a session's client has proved to receive at this address.
    pub(super) fn on_path(&mut self, session: SessionId, address: IpAddr) {
        self.networks.insert(session, Network::of(address));
    }

    /// The network where the session's client has proved to receive.
    pub(super) fn network(&self, session: SessionId) -> Option<Network> {
        self.networks.get(&session).copied()
    }

    /// Forgets a session that has ended.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.session_requests.remove(&session);
        self.networks.remove(&session);
    }

    /// Charges a request or query to the budgets of the session, its profile and its network, in this
    /// order, so that a refusal by one takes nothing from the budgets after it. Without a profile only the
    /// network is charged.
    ///
    /// # Errors
    /// A budget is exceeded: the time in ms after which the client may retry.
    pub(super) fn spend(
        &mut self,
        now: Moment,
        session: SessionId,
        profile: Option<&Name>,
        cost: u32,
    ) -> Result<(), u32> {
        let mut spent = Ok(());
        if let Some(profile) = profile {
            spent = self.session_requests.take(now, &session, cost);
            spent = spent.and_then(|()| self.profile_requests.take(now, profile, cost));
        }
        let network = self.network(session);
        if !is_own(network) {
            spent = spent.and_then(|()| self.network_requests.take(now, &network, cost));
        }
        spent.map_err(|wait| wait.as_millis().clamp(1, 60_000) as u32)
    }

    /// Charges a query without a session to the budgets of the asker's profile and of its network, where the
    /// handshake has proved that it receives.
    ///
    /// # Errors
    /// A budget is exceeded: the time in ms after which the client may retry.
    pub(super) fn spend_without_session(
        &mut self,
        now: Moment,
        address: IpAddr,
        profile: Option<&Name>,
        cost: u32,
    ) -> Result<(), u32> {
        let mut spent = profile.map_or(Ok(()), |profile| self.profile_requests.take(now, profile, cost));
        let network = Some(Network::of(address));
        if !is_own(network) {
            spent = spent.and_then(|()| self.network_requests.take(now, &network, cost));
        }
        spent.map_err(|wait| wait.as_millis().clamp(1, 60_000) as u32)
    }

    /// Charges the same budgets for what a query without a session cost beyond the amount that was charged
    /// before it ran.
    pub(super) fn owe_without_session(&mut self, now: Moment, address: IpAddr, profile: &Name, cost: u32) {
        self.profile_requests.owe(now, profile, cost);
        self.network_requests.owe(now, &Some(Network::of(address)), cost);
    }

    /// Charges the same budgets for what a query cost beyond the amount that was charged before it ran.
    /// Less is left for later requests, or none for a while.
    pub(super) fn owe(&mut self, now: Moment, session: SessionId, profile: Option<&Name>, cost: u32) {
        if let Some(profile) = profile {
            self.session_requests.owe(now, &session, cost);
            self.profile_requests.owe(now, profile, cost);
        }
        // The loopback network has no limit and no bucket, so this does not charge it.
        let network = self.network(session);
        self.network_requests.owe(now, &network, cost);
    }

    /// Charges the claim of a name to a network, except the loopback network.
    ///
    /// # Errors
    /// The network has claimed too many names lately: the time until it may claim the next.
    pub(super) fn claim_name(&mut self, now: Moment, network: Network) -> Result<(), Duration> {
        if is_own(Some(network)) {
            return Ok(());
        }
        self.names.take(now, &network, Limits::NAME_COST)
    }

    /// Returns true if the session's network may make one more channel, which this charges.
    pub(super) fn may_make_channel(&mut self, now: Moment, session: SessionId) -> bool {
        let network = self.network(session);
        is_own(network) || self.channels.take(now, &network, Limits::NAME_COST).is_ok()
    }
}

/// Returns true for the loopback network, which has no limit: a machine's own addresses must not lock anybody
/// out of it.
fn is_own(network: Option<Network>) -> bool {
    network.is_some_and(|network| network.is_loopback())
}
