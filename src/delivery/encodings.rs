//! The encodings of the notifications sent lately. A notification goes to many sessions within a short time,
//! and only the op before it differs between them, so it is encoded once.

use std::sync::Arc;

use recado_proto::codec;
use recado_proto::id::Op;
use recado_proto::packet::{Item, Notification};

/// The most encodings kept: what sessions that are up to date have in flight. A session that reads older
/// notifications has them encoded for itself.
const KEPT_MAX: usize = 256;

/// The encodings kept; that of an op at its remainder by [`KEPT_MAX`], so that a later op replaces it. At
/// most 64 KiB each, the largest packet.
#[derive(Debug)]
pub(super) struct Encodings {
    kept: Vec<Option<(Op, Arc<[u8]>)>>,
}

impl Encodings {
    pub(super) fn new() -> Encodings {
        Encodings { kept: vec![None; KEPT_MAX] }
    }

    /// The encoding of a notification as an item of a stream. Ops identify notifications.
    pub(super) fn of(&mut self, notification: &Arc<Notification>) -> Arc<[u8]> {
        let op = notification.op;
        let place = (op.0 % KEPT_MAX as u64) as usize;
        match &self.kept[place] {
            Some((kept, bytes)) if *kept == op => bytes.clone(),
            newer if newer.as_ref().is_some_and(|(kept, _)| *kept > op) => encode(notification),
            _ => {
                let bytes = encode(notification);
                self.kept[place] = Some((op, bytes.clone()));
                bytes
            }
        }
    }
}

fn encode(notification: &Arc<Notification>) -> Arc<[u8]> {
    codec::encode(&Item::Notification(notification.clone())).into()
}
