//! What programs ask the servers, alike on a session ([`Client`](super::Client)) and without one
//! ([`Reader`](super::Reader)): history, lists, information about profiles, and values of the store.

use std::sync::Arc;
use std::time::Duration;

use recado_proto::id::{Name, Op, StoreKey, Topic};
use recado_proto::packet::{
    DisplayName, History, HistoryRange, Info, ListItem, Listing, Notification, Selection, StoredValue,
};

use super::error::ClientError;
use super::machine::{Answer, Query};

/// A part of a topic's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Ascending by op, whichever the direction.
    pub notifications: Vec<Arc<Notification>>,
    /// True if there is more in the direction asked for.
    pub more: bool,
    /// Retention dropped everything up to here.
    pub trimmed_upto: Op,
    /// The op up to which the answer is complete.
    pub applied: Op,
}

/// The answer of [`Queries::info`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileInfo {
    /// What the servers count.
    pub info: Info,
    /// The profile's display name.
    pub display: Option<DisplayName>,
    /// The op up to which all this is true.
    pub applied: Op,
}

/// The answer of [`Queries::get`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The value, with its timestamp and author; none: the key has no value.
    pub value: Option<StoredValue>,
    /// The op up to which that is true.
    pub applied: Op,
}

/// The way of one query to the servers and of its answer back.
pub trait Asks {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`]: the query was refused, or there was no answer in time.
    fn ask(&self, query: Query) -> Result<Answer, ClientError>;

    /// The time that an answer is waited for.
    fn patience(&self) -> Duration;
}

/// Queries; none of them changes anything.
pub trait Queries: Asks {
    /// A topic's history; without a topic, the history of all topics that the profile follows. Never moves
    /// the cursor. Returns at most `limit` notifications, merged from as many pages as needed.
    ///
    /// # Errors
    /// [`ClientError`]: the query was refused, or there was no answer in time.
    fn history(&self, topic: Option<Topic>, range: HistoryRange, limit: usize) -> Result<Past, ClientError> {
        self.search(topic, range, limit, &Selection::default())
    }

    /// What a selection asks for of a topic's history, as [`Queries::history`]. The servers look through the
    /// whole range, if need be, 1,024 notifications in a query.
    ///
    /// # Errors
    /// [`ClientError`]: the selection is too long, the query was refused, or there was no answer in time.
    fn search(
        &self,
        topic: Option<Topic>,
        range: HistoryRange,
        limit: usize,
        selection: &Selection,
    ) -> Result<Past, ClientError> {
        selection.check()?;
        let mut past =
            Past { notifications: Vec::new(), more: true, trimmed_upto: Op::ZERO, applied: Op::ZERO };
        let mut range = range;
        while past.more && past.notifications.len() < limit {
            let wanted = limit - past.notifications.len();
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).min(History::LIMIT_MAX);
            let query =
                Query::History { topic: topic.clone(), range, limit: wanted, selection: selection.clone() };
            let (page, reached, applied) = match self.ask(query)? {
                Answer::History { page, reached, applied } => (page, reached, applied),
                other => return Err(unexpected(other, self.patience())),
            };
            (past.trimmed_upto, past.applied) = (page.trimmed_upto, applied);
            let newest_first = matches!(range, HistoryRange::Before(_));
            let ends = if newest_first { page.notifications.first() } else { page.notifications.last() };
            let next = reached.or(ends.map(|end| end.op)).filter(|next| match range {
                HistoryRange::Before(op) => *next < op,
                HistoryRange::After(op) => *next > op,
                HistoryRange::SinceMs(_) => true,
            });
            // A page with neither is the last one, whatever its server says.
            let Some(next) = next else {
                past.more = false;
                break;
            };
            past.more = page.more;
            if newest_first {
                past.notifications.splice(0..0, page.notifications);
                range = HistoryRange::Before(next);
            } else {
                past.notifications.extend(page.notifications);
                range = HistoryRange::After(next);
            }
        }
        Ok(past)
    }

    /// One of the lists as a whole, merged from as many pages as needed.
    ///
    /// # Errors
    /// [`ClientError`]: the query was refused, or there was no answer in time.
    fn list(&self, what: Listing) -> Result<Vec<ListItem>, ClientError> {
        let mut items: Vec<ListItem> = Vec::new();
        loop {
            let after = items.last().map(ListItem::key);
            match self.ask(Query::List { what: what.clone(), after })? {
                Answer::List(page) => {
                    let more = page.more && !page.items.is_empty();
                    items.extend(page.items);
                    if !more {
                        return Ok(items);
                    }
                }
                other => return Err(unexpected(other, self.patience())),
            }
        }
    }

    /// Information about a profile; without a name, about the asker's own.
    ///
    /// # Errors
    /// [`ClientError`]: the query was refused, or there was no answer in time.
    fn info(&self, profile: Option<Name>) -> Result<ProfileInfo, ClientError> {
        match self.ask(Query::Info { profile })? {
            Answer::Info { info, display, applied } => Ok(ProfileInfo { info, display, applied }),
            other => Err(unexpected(other, self.patience())),
        }
    }

    /// The value of a key of the store.
    ///
    /// # Errors
    /// [`ClientError`]: the query was refused, or there was no answer in time.
    fn get(&self, key: StoreKey) -> Result<Got, ClientError> {
        match self.ask(Query::Get { key })? {
            Answer::Value { value, applied } => Ok(Got { value, applied }),
            other => Err(unexpected(other, self.patience())),
        }
    }
}

impl<A: Asks> Queries for A {}

/// An answer of another kind than the query. It is a server's fault, and counts as no answer.
fn unexpected(answer: Answer, timeout: Duration) -> ClientError {
    tracing::debug!(?answer, "an answer to another query");
    match answer {
        Answer::Refused(code) => ClientError::Refused(code),
        Answer::History { .. }
        | Answer::List(_)
        | Answer::Info { .. }
        | Answer::Value { .. }
        | Answer::Status(_) => ClientError::Timeout(timeout),
    }
}
