//! Outbox: numbered requests, retransmitted in new packets until they are answered.
//!
//! A request gets its number and its nonce when it is asked, also without a server, so it is the same request
//! whichever copy of the device's files sends it. Without a server, numbering continues from the highest
//! number in the files; if the files are out of date, such a number is settled like any other.
//!
//! If there is a copy of the device's files, numbers that the service had applied when the session was opened
//! may belong to other requests. They are settled before anything else is sent. A request whose number
//! another request took gets a new number, together with all requests asked after it, so that they are
//! applied in the order in which they were asked. That is safe: the service has applied nothing beyond the
//! number that it reported, the device's older sessions are fenced, and this session has sent nothing beyond
//! it.

use std::collections::BTreeMap;
use std::time::Duration;

use recado_proto::envelope::PACKETS_MAX;
use recado_proto::id::{Moment, OUTSTANDING_MAX, Op, Seq};
use recado_proto::packet::{
    Channel, Code, Extension, ExtensionRequest, Follow, Keys, OptionalFields, Send, ToServer,
};
use recado_proto::{codec, fragment};

use super::{Effect, Event, Numbered, Request};

/// An unanswered request is retransmitted after the link's retransmission time-out, but not sooner than this:
/// a commit takes a quorum's fsync.
const AGAIN_MIN: Duration = Duration::from_millis(100);

/// The longest wait before a retransmission.
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// The most requests in one datagram. A server takes no more than 32 packets in one.
const BATCH_MAX: usize = 16;

/// Returns true if a refusal is transient: it used no number, and the same request may be accepted a moment
/// later. `retry_ms` tells it of a code that this version does not know.
pub(super) fn passes(code: Code, retry_ms: u32) -> bool {
    match code {
        Code::Busy
        | Code::NoQuorum
        | Code::NotPrimary
        | Code::TooFarAhead
        | Code::TryOtherServerOrLater
        | Code::HomeGone
        | Code::NotAMember => true,
        Code::Unsupported
        | Code::OtherEpoch
        | Code::UnknownProfile
        | Code::UnknownChannel
        | Code::ChannelDeleted
        | Code::InviteNeeded
        | Code::WrongInvite
        | Code::KeyNotAllowed
        | Code::TooManyNames
        | Code::UnknownDevice
        | Code::SessionOver
        | Code::NotYours
        | Code::NotAllowed
        | Code::AlreadyFollowing
        | Code::NotFollowing
        | Code::Yourself
        | Code::TooLarge
        | Code::LimitReached
        | Code::NameTaken
        | Code::NotMember
        | Code::LastOne
        | Code::WrongCode
        | Code::BeyondEnd
        | Code::NumberTaken
        | Code::NumberForgotten
        | Code::UnknownNotification
        | Code::KeyExists
        | Code::UnknownKey
        | Code::StaleTimestamp
        | Code::Fenced => false,
        Code::Unknown(_) => retry_ms > 0,
    }
}

#[derive(Debug)]
struct Outstanding {
    request: Request,
    /// See [`Send::nonce`].
    nonce: u64,
    due: Moment,
    tries: u32,
    /// Of the first transmission to this primary.
    sent: Option<Sent>,
    /// The token of the last transmission.
    token: Option<u64>,
}

/// What a request keeps when it is sent again, so that its encoding stays the same and the fragments of all
/// transmissions complete each other.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// The number of the datagram that carried its first fragment.
    first: u64,
    /// The lowest unanswered number.
    answered_below: Seq,
}

impl Outstanding {
    fn new(request: Request, nonce: u64, due: Moment) -> Outstanding {
        Outstanding { request, nonce, due, tries: 0, sent: None, token: None }
    }

    /// Its packet.
    fn packet(&self, seq: Seq, answered_below: Seq) -> ToServer {
        let nonce = self.nonce;
        let options = OptionalFields::NONE;
        match self.request.clone() {
            Request::Follow { topic, change } => {
                ToServer::Follow(Follow { seq, answered_below, topic, change, nonce, options })
            }
            Request::Keys { change } => ToServer::Keys(Keys { seq, answered_below, change, nonce, options }),
            Request::Channel { channel, change } => {
                ToServer::Channel(Channel { seq, answered_below, channel, change, nonce, options })
            }
            Request::Send { topic, content } => {
                ToServer::Send(Send { seq, answered_below, topic, content, nonce, options })
            }
            // These do not tell which numbers are answered, so that their content is always the same.
            Request::Retract { op } => extension(seq, nonce, &ExtensionRequest::Retract { op }),
            Request::Display { name } => extension(seq, nonce, &ExtensionRequest::Display { name }),
            Request::Put { key, value, condition } => {
                extension(seq, nonce, &ExtensionRequest::Put { key, value, condition })
            }
            Request::Delete { key, at } => extension(seq, nonce, &ExtensionRequest::Delete { key, at }),
        }
    }

    fn on_sent(&mut self, now: Moment, rto: Duration, token: u64, sent: Sent) {
        let wait = rto.max(AGAIN_MIN) * (1 << self.tries.min(4));
        self.due = now + wait.min(AGAIN_MAX);
        self.tries += 1;
        (self.token, self.sent) = (Some(token), Some(sent));
    }
}

fn extension(seq: Seq, nonce: u64, request: &ExtensionRequest) -> ToServer {
    ToServer::Extension(Extension::of_request(seq, nonce, request))
}

/// Requests to send at once.
#[derive(Debug)]
pub(super) struct Batch {
    /// The token under which they are sent.
    pub(super) token: u64,
    pub(super) packets: Vec<ToServer>,
    /// True if another one is due that a longer datagram would hold.
    pub(super) more: bool,
}

/// All unanswered requests.
#[derive(Debug)]
pub(super) struct Outbox {
    /// The next number.
    next: Seq,
    outstanding: BTreeMap<Seq, Outstanding>,
    /// The last number applied when the session was opened, while requests at or below it are unanswered.
    settling: Option<Seq>,
    /// Requests whose number another request took, by that number.
    displaced: BTreeMap<Seq, Outstanding>,
    /// The highest number below which all are answered, as the servers were told.
    told_below: Seq,
    /// The token of the last transmission.
    token: u64,
}

impl Outbox {
    /// Starts with the requests that an earlier run of the device left unanswered, and the highest number in
    /// its files.
    pub(super) fn new(left: impl Iterator<Item = Numbered>, given: Seq) -> Outbox {
        let outstanding =
            left.map(|of| (of.seq, Outstanding::new(of.request, of.nonce, Moment(0)))).collect();
        let (settling, displaced) = (None, BTreeMap::new());
        let (next, told_below, token) = (Seq(0), Seq(0), 0);
        let mut outbox = Outbox { next, outstanding, settling, displaced, told_below, token };
        outbox.go_on_from(given);
        outbox
    }

    /// The next number follows `last` and all outstanding numbers.
    fn go_on_from(&mut self, last: Seq) {
        let highest = self.outstanding.last_key_value().map_or(last, |(seq, _)| last.max(*seq));
        self.next = highest.next();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.outstanding.is_empty() && self.displaced.is_empty()
    }

    /// Returns true if another request would be taken.
    pub(super) fn has_room(&self) -> bool {
        self.span() + self.displaced.len() < OUTSTANDING_MAX
    }

    /// The application makes a request.
    pub(super) fn add(&mut self, now: Moment, request: Request, nonce: u64, out: &mut Vec<Effect>) {
        if !self.has_room() {
            return out.push(Effect::Event(Event::NotTaken));
        }
        let seq = self.next;
        self.next = seq.next();
        self.outstanding.insert(seq, Outstanding::new(request, nonce, now));
        out.push(Effect::Event(Event::Numbered { seq, nonce }));
    }

    /// The count of numbers from the lowest unanswered one to the highest given, with the answered ones
    /// between: the service keeps that many results from the lowest on, and none before them.
    fn span(&self) -> usize {
        let lowest = self.outstanding.first_key_value();
        lowest.map_or(0, |(lowest, _)| self.next.0.saturating_sub(lowest.0) as usize)
    }

    /// The service has reported the last number that it applied.
    pub(super) fn begin(&mut self, now: Moment, last: Seq, out: &mut Vec<Effect>) {
        self.settling = Some(last);
        self.go_on_from(last);
        self.settle(now, out);
    }

    /// Once nothing is left to settle, gives the outstanding requests the numbers that follow the last one
    /// applied. These differ from the old numbers if another request took one of them, or if the servers lost
    /// requests that they had answered: then no number could follow the last one applied.
    fn settle(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(last) = self.settling else { return };
        if self.outstanding.first_key_value().is_some_and(|(seq, _)| *seq <= last) {
            return;
        }
        self.settling = None;
        let mut renumbered = Vec::new();
        let mut next = last.next();
        let mut all = std::mem::take(&mut self.displaced);
        all.append(&mut self.outstanding);
        for (from, Outstanding { request, nonce, .. }) in all {
            if from != next {
                renumbered.push((from, next));
            }
            self.outstanding.insert(next, Outstanding::new(request, nonce, now));
            next = next.next();
        }
        self.next = next;
        if !renumbered.is_empty() {
            out.push(Effect::Event(Event::Renumbered(renumbered)));
        }
    }

    /// Gives up requests whose outcome nobody can know any more; they are not sent again.
    pub(super) fn forget(&mut self, unknown: impl Iterator<Item = Seq>, out: &mut Vec<Effect>) {
        for seq in unknown.filter(|seq| self.outstanding.remove(seq).is_some()) {
            out.push(Effect::Event(Event::Answered { seq, result: Err(Code::NumberForgotten) }));
        }
    }

    /// Another request of the device has this number, so this one was never applied.
    pub(super) fn on_number_taken(&mut self, now: Moment, seq: Seq, out: &mut Vec<Effect>) {
        let Some(outstanding) = self.outstanding.remove(&seq) else { return };
        if self.settling.is_some() {
            self.displaced.insert(seq, outstanding);
            return self.settle(now, out);
        }
        // The number was given in this session. No correct server answers so, but the request must not wait
        // for ever.
        let to = self.next;
        self.next = to.next();
        self.outstanding.insert(to, Outstanding::new(outstanding.request, outstanding.nonce, now));
        out.push(Effect::Event(Event::Renumbered(vec![(seq, to)])));
    }

    /// The next requests that are due, among the `window` lowest numbers: as many as share the datagram with
    /// the number `next`, which has `room` for them, or the fragments of a large one alone, which begin
    /// there.
    pub(super) fn next_batch(
        &mut self,
        now: Moment,
        rto: Duration,
        window: usize,
        next: u64,
        room: usize,
    ) -> Option<Batch> {
        let lowest = *self.outstanding.first_key_value()?.0;
        let upto = self.sendable_upto();
        let token = self.token + 1;
        let (mut packets, mut bytes, mut more) = (Vec::new(), 0, false);
        let sendable = self.outstanding.range_mut(..=upto).take(window);
        for (seq, outstanding) in sendable.filter(|(_, outstanding)| outstanding.due <= now) {
            let sent = outstanding.sent.unwrap_or(Sent { first: next, answered_below: lowest });
            let packet = outstanding.packet(*seq, sent.answered_below);
            let length = codec::encoded_len(&packet);
            let fits = length <= PACKETS_MAX && bytes + length <= room && packets.len() < BATCH_MAX;
            if !packets.is_empty() && !fits {
                // It begins another datagram.
                more = packets.len() < BATCH_MAX;
                break;
            }
            outstanding.on_sent(now, rto, token, sent);
            self.told_below = self.told_below.max(sent.answered_below);
            bytes += length;
            if length > PACKETS_MAX {
                packets = fragment::cut(packet, sent.first);
                break;
            }
            packets.push(packet);
        }
        if packets.is_empty() {
            return None;
        }
        self.token = token;
        Some(Batch { token, packets, more })
    }

    /// The highest number of which the servers were told that all requests below it are answered.
    pub(super) fn told_below(&self) -> Seq {
        self.told_below
    }

    /// The highest number that may be sent.
    fn sendable_upto(&self) -> Seq {
        self.settling.unwrap_or(Seq(u64::MAX))
    }

    /// The number of unanswered requests with lower numbers; none if this one is not outstanding.
    pub(super) fn rank(&self, seq: Seq) -> Option<usize> {
        self.outstanding.contains_key(&seq).then(|| self.outstanding.range(..seq).count())
    }

    /// The link declared a datagram of this transmission lost.
    pub(super) fn lost(&mut self, now: Moment, token: u64) {
        for outstanding in self.outstanding.values_mut().filter(|one| one.token == Some(token)) {
            outstanding.due = now;
        }
    }

    /// A primary has begun to serve the session: all requests are sent to it at once, in order.
    pub(super) fn send_all(&mut self, now: Moment) {
        for outstanding in self.outstanding.values_mut() {
            (outstanding.due, outstanding.tries) = (now, 0);
            (outstanding.sent, outstanding.token) = (None, None);
        }
    }

    /// This request was refused for a passing reason. It was not lost, and is sent again from `due` on.
    pub(super) fn refused(&mut self, seq: Seq, due: Moment) {
        if let Some(outstanding) = self.outstanding.get_mut(&seq) {
            (outstanding.due, outstanding.tries) = (due, 0);
        }
    }

    pub(super) fn answered(
        &mut self,
        now: Moment,
        seq: Seq,
        result: Result<Op, Code>,
        out: &mut Vec<Effect>,
    ) {
        if self.outstanding.remove(&seq).is_some() {
            out.push(Effect::Event(Event::Answered { seq, result }));
            self.settle(now, out);
        }
    }

    /// The time at which the first of the `window` lowest numbers is due.
    pub(super) fn next_deadline(&self, window: usize) -> Option<Moment> {
        let sendable = self.outstanding.range(..=self.sendable_upto()).take(window);
        sendable.map(|(_, outstanding)| outstanding.due).min()
    }
}

#[cfg(test)]
mod tests {
    use recado_proto::fragment::Reassembler;
    use recado_proto::id::Topic;
    use recado_proto::packet::{Content, FollowChange};

    use super::*;

    fn request() -> Request {
        Request::Follow { topic: Topic::to_follow("@bob").unwrap(), change: FollowChange::Add }
    }

    fn left(numbers: &[u64]) -> Outbox {
        Outbox::new(
            numbers.iter().map(|seq| Numbered { seq: Seq(*seq), nonce: *seq, request: request() }),
            Seq(0),
        )
    }

    /// The numbers and nonces that would be sent at once.
    fn due(outbox: &mut Outbox) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| outbox.next_batch(Moment(0), Duration::ZERO, usize::MAX, 1, PACKETS_MAX))
            .flat_map(|batch| batch.packets)
            .map(|packet| match packet {
                ToServer::Follow(follow) => (follow.seq.0, follow.nonce),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_request_whose_number_is_taken_is_renumbered_after_the_last_one_with_all_later_ones() {
        let (mut outbox, mut out) = (left(&[5, 6, 7, 8]), Vec::new());
        outbox.begin(Moment(0), Seq(7), &mut out);
        assert_eq!(due(&mut outbox), [(5, 5), (6, 6), (7, 7)], "what may be another's is settled first");
        outbox.on_number_taken(Moment(0), Seq(6), &mut out);
        outbox.answered(Moment(0), Seq(5), Ok(Op(1)), &mut out);
        assert_eq!(due(&mut outbox), []);
        outbox.answered(Moment(0), Seq(7), Err(Code::NumberForgotten), &mut out);
        let moved = Event::Renumbered(vec![(Seq(6), Seq(8)), (Seq(8), Seq(9))]);
        assert_eq!(out.last(), Some(&Effect::Event(moved)));
        assert_eq!(due(&mut outbox), [(8, 6), (9, 8)], "in the order they were asked");
        outbox.add(Moment(0), request(), 0, &mut out);
        assert_eq!(due(&mut outbox)[0].0, 10);
    }

    #[test]
    fn a_request_before_the_first_answer_follows_the_files_numbers_and_is_settled_first() {
        let (mut outbox, mut out) = (Outbox::new([].into_iter(), Seq(4)), Vec::new());
        outbox.add(Moment(0), request(), 50, &mut out);
        outbox.add(Moment(0), request(), 60, &mut out);
        let numbered = |seq, nonce| Effect::Event(Event::Numbered { seq: Seq(seq), nonce });
        assert_eq!(out, [numbered(5, 50), numbered(6, 60)]);
        outbox.begin(Moment(0), Seq(5), &mut out);
        assert_eq!(due(&mut outbox), [(5, 50)], "another copy of the files has used this one");
        outbox.on_number_taken(Moment(0), Seq(5), &mut out);
        assert_eq!(due(&mut outbox), [(6, 50), (7, 60)]);
    }

    #[test]
    fn a_request_while_others_are_settled_follows_the_last_applied_number() {
        let (mut outbox, mut out) = (left(&[5]), Vec::new());
        outbox.begin(Moment(0), Seq(9), &mut out);
        outbox.add(Moment(0), request(), 60, &mut out);
        assert_eq!(out, [Effect::Event(Event::Numbered { seq: Seq(10), nonce: 60 })]);
        assert_eq!(due(&mut outbox), [(5, 5)]);
    }

    #[test]
    fn numbers_that_nothing_could_follow_are_given_anew() {
        let (mut outbox, mut out) = (left(&[45, 46]), Vec::new());
        outbox.begin(Moment(0), Seq(40), &mut out);
        assert_eq!(due(&mut outbox), [(41, 45), (42, 46)]);
        assert_eq!(out, [Effect::Event(Event::Renumbered(vec![(Seq(45), Seq(41)), (Seq(46), Seq(42))]))]);
    }

    #[test]
    fn the_servers_are_told_of_an_answer_only_with_a_request_that_goes_after_it() {
        let (mut outbox, mut out) = (left(&[]), Vec::new());
        outbox.begin(Moment(0), Seq(0), &mut out);
        (0..4).for_each(|_| outbox.add(Moment(0), request(), 0, &mut out));
        assert_eq!(outbox.told_below(), Seq(0));
        let go = |outbox: &mut Outbox, window| {
            outbox
                .next_batch(Moment(0), Duration::ZERO, window, 1, PACKETS_MAX)
                .map(|batch| batch.packets.len())
        };
        assert_eq!(go(&mut outbox, 2), Some(2));
        outbox.answered(Moment(0), Seq(1), Ok(Op(1)), &mut out);
        assert_eq!(outbox.told_below(), Seq(1));
        outbox.lost(Moment(0), 1);
        assert_eq!(go(&mut outbox, 1), Some(1));
        assert_eq!(outbox.told_below(), Seq(1), "what is sent again has the same bytes");
        assert_eq!(go(&mut outbox, 3), Some(2));
        assert_eq!(outbox.told_below(), Seq(2));
    }

    #[test]
    fn requests_share_a_datagram_in_their_order_and_are_lost_together() {
        let (mut outbox, mut out) = (left(&[]), Vec::new());
        outbox.begin(Moment(0), Seq(0), &mut out);
        (0..40).for_each(|_| outbox.add(Moment(0), request(), 0, &mut out));
        let mut go = || outbox.next_batch(Moment(0), Duration::ZERO, usize::MAX, 1, PACKETS_MAX);
        let seqs = |packets: Vec<ToServer>| -> Vec<u64> {
            packets.iter().filter_map(|packet| packet.seq()).map(|seq| seq.0).collect()
        };
        let batches: Vec<_> =
            std::iter::from_fn(|| go().map(|batch| (batch.token, seqs(batch.packets)))).collect();
        let all = [(1, (1..=16).collect()), (2, (17..=32).collect()), (3, (33..=40).collect::<Vec<_>>())];
        assert_eq!(batches, all);
        outbox.answered(Moment(0), Seq(20), Ok(Op(1)), &mut out);
        outbox.lost(Moment(0), 2);
        let again = due(&mut outbox).into_iter().map(|(seq, _)| seq);
        assert!(again.eq((17..=32).filter(|seq| *seq != 20)));
        outbox.lost(Moment(0), 2);
        assert_eq!(due(&mut outbox), [], "the token stands for no later transmission");
    }

    #[test]
    fn a_datagram_has_no_more_requests_than_bytes_for_them() {
        let (mut outbox, mut out) = (left(&[]), Vec::new());
        outbox.begin(Moment(0), Seq(0), &mut out);
        let content = |length: usize| Content::of("7".repeat(length));
        for length in [400, 400, 400, 1_000, 30, 1_080, 0] {
            outbox.add(Moment(0), Request::Send { topic: None, content: content(length) }, 0, &mut out);
        }
        let room = PACKETS_MAX;
        let batches =
            std::iter::from_fn(|| outbox.next_batch(Moment(0), Duration::ZERO, usize::MAX, 1, room));
        let lengths: Vec<_> = batches
            .map(|Batch { packets, .. }| {
                (packets.len(), packets.iter().map(codec::encoded_len).sum::<usize>())
            })
            .collect();
        assert_eq!(lengths.iter().map(|(count, _)| count).sum::<usize>(), 7);
        assert!(lengths.iter().all(|(_, bytes)| *bytes <= PACKETS_MAX), "{lengths:?}");
        assert_eq!(lengths[0].0, 2);
    }

    #[test]
    fn a_longer_datagram_has_more_requests_and_a_large_one_goes_alone_all_the_same() {
        let (mut outbox, mut out) = (left(&[]), Vec::new());
        outbox.begin(Moment(0), Seq(0), &mut out);
        let content = |length: usize| Content::of("7".repeat(length));
        for length in [1_000, 1_000, 1_000, 1_300, 1_000] {
            outbox.add(Moment(0), Request::Send { topic: None, content: content(length) }, 0, &mut out);
        }
        let room = 8 * PACKETS_MAX;
        let batches =
            std::iter::from_fn(|| outbox.next_batch(Moment(0), Duration::ZERO, usize::MAX, 1, room));
        let kinds: Vec<_> = batches
            .map(|Batch { packets, .. }| {
                let pieces = packets.iter().filter(|packet| matches!(packet, ToServer::Fragment(_))).count();
                (packets.len() - pieces, pieces)
            })
            .collect();
        assert_eq!(kinds, [(3, 0), (0, 2), (1, 0)]);
    }

    #[test]
    fn a_request_that_waits_for_others_to_be_settled_sets_no_deadline() {
        let (mut outbox, mut out) = (left(&[4, 5]), Vec::new());
        outbox.begin(Moment(0), Seq(4), &mut out);
        due(&mut outbox);
        assert!(outbox.next_deadline(usize::MAX).is_some_and(|at| at > Moment(0)));
    }

    #[test]
    fn one_request_without_an_answer_takes_the_room_of_all_behind_it() {
        let (mut outbox, mut out) = (left(&[]), Vec::new());
        outbox.begin(Moment(0), Seq(0), &mut out);
        let last = Seq(OUTSTANDING_MAX as u64);
        for _ in 0..last.0 {
            assert!(outbox.has_room());
            outbox.add(Moment(0), request(), 0, &mut out);
        }
        for seq in (2..=last.0).map(Seq) {
            outbox.answered(Moment(0), seq, Ok(Op(1)), &mut out);
        }
        out.clear();
        assert!(!outbox.has_room());
        outbox.add(Moment(0), request(), 0, &mut out);
        assert_eq!(out, [Effect::Event(Event::NotTaken)]);
        outbox.answered(Moment(0), Seq(1), Ok(Op(1)), &mut out);
        assert!(outbox.has_room());
    }
    /// How many ms a request waits each time it goes, from `now` on.
    fn waits(outbox: &mut Outbox, now: &mut Moment, rto: u64, times: usize) -> Vec<u64> {
        let rto = Duration::from_millis(rto);
        let wait = |_| {
            assert!(outbox.next_batch(*now, rto, usize::MAX, 1, PACKETS_MAX).is_some());
            assert!(outbox.next_batch(*now, rto, usize::MAX, 1, PACKETS_MAX).is_none(), "it has gone");
            let next = outbox.next_deadline(usize::MAX).unwrap();
            (next.since(std::mem::replace(now, next))).as_millis() as u64
        };
        (0..times).map(wait).collect()
    }

    #[test]
    fn an_unanswered_request_is_resent_after_twice_as_long_each_time_until_a_primary_answers() {
        let (mut outbox, mut out, mut now) = (left(&[]), Vec::new(), Moment(5_000_000));
        outbox.begin(now, Seq(0), &mut out);
        outbox.add(now, request(), 0, &mut out);
        assert_eq!(waits(&mut outbox, &mut now, 20, 6), [100, 200, 400, 800, 1_000, 1_000]);
        outbox.send_all(now);
        assert_eq!(waits(&mut outbox, &mut now, 20, 2), [100, 200], "another primary");
        outbox.refused(Seq(1), now);
        assert_eq!(waits(&mut outbox, &mut now, 150, 2), [150, 300], "the time-out of the link");
        outbox.refused(Seq(1), now);
        assert_eq!(waits(&mut outbox, &mut now, 20, 1), [100]);
        now = Moment(now.0 - 50_000);
        outbox.lost(now, outbox.token);
        assert_eq!(waits(&mut outbox, &mut now, 20, 1), [200], "at once when it is lost");
    }

    #[test]
    fn requests_whose_numbers_others_have_take_room_until_they_have_numbers_of_their_own() {
        let numbers: Vec<u64> = (1..=OUTSTANDING_MAX as u64).collect();
        let (mut outbox, mut out) = (left(&numbers), Vec::new());
        outbox.begin(Moment(0), Seq(OUTSTANDING_MAX as u64), &mut out);
        for seq in 1..=200 {
            outbox.on_number_taken(Moment(0), Seq(seq), &mut out);
            assert!(!outbox.has_room(), "none has an answer: {seq}");
        }
        outbox.answered(Moment(0), Seq(201), Ok(Op(1)), &mut out);
        assert!(outbox.has_room() && !outbox.is_empty());
    }

    #[test]
    fn a_number_of_this_session_that_another_request_has_is_followed_by_the_next_one() {
        let (mut outbox, mut out) = (left(&[]), Vec::new());
        outbox.begin(Moment(0), Seq(4), &mut out);
        outbox.add(Moment(0), request(), 50, &mut out);
        outbox.on_number_taken(Moment(0), Seq(5), &mut out);
        assert_eq!(out.last(), Some(&Effect::Event(Event::Renumbered(vec![(Seq(5), Seq(6))]))));
        outbox.add(Moment(0), request(), 70, &mut out);
        assert_eq!(due(&mut outbox), [(6, 50), (7, 70)]);
    }

    #[test]
    fn a_large_request_sent_again_completes_what_arrived_of_it() {
        let (mut outbox, mut out) = (left(&[]), Vec::new());
        outbox.begin(Moment(0), Seq(0), &mut out);
        outbox.add(Moment(0), request(), 0, &mut out);
        let (title, priority, tags, extra) = (None, Default::default(), vec![], vec![]);
        let content = Content { title, priority, tags, body: "7".repeat(5_000).into(), extra };
        outbox.add(Moment(0), Request::Send { topic: None, content }, 0, &mut out);
        let due = |outbox: &mut Outbox, next| {
            outbox.next_batch(Moment(0), Duration::ZERO, usize::MAX, next, PACKETS_MAX).unwrap().packets
        };
        assert_eq!(due(&mut outbox, 7).len(), 1, "a large one shares no datagram");
        let once = due(&mut outbox, 8);
        assert_eq!(once.len(), 5);
        // What is sent again has the same bytes, although less is unanswered now.
        outbox.answered(Moment(0), Seq(1), Ok(Op(1)), &mut out);
        outbox.lost(Moment(0), outbox.token);
        let again = due(&mut outbox, 90);
        let mut reassembler = Reassembler::default();
        let arrived = once.iter().skip(1).chain(&again[..4]).map(|packet| match packet {
            ToServer::Fragment(piece) => reassembler.accept::<ToServer>(Moment(0), piece.clone()).unwrap(),
            other => panic!("{other:?}"),
        });
        let whole = arrived.flatten().next().unwrap();
        assert_eq!(whole.seq(), Some(Seq(2)));
        // Another session begins its numbers anew.
        outbox.send_all(Moment(0));
        let anew = due(&mut outbox, 3);
        assert!(matches!(&anew[0], ToServer::Fragment(piece) if piece.first == 3));
    }
}
