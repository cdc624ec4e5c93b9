//! Claims of names: invitations, allowed keys, and the limit of profiles.

use super::*;

#[test]
fn an_invitation_lets_as_many_names_be_claimed_as_it_says_and_no_more() {
    let mut log = Log::new();
    log.open("early", 9);
    let invited = |log: &mut Log, who: &str, key| log.claim(who, key, Admission::Invite, Some(INVITED));
    assert_eq!(log.claim("alice", 1, Admission::Invite, None), Err(Code::InviteNeeded));
    assert_eq!(invited(&mut log, "alice", 1), Err(Code::WrongInvite));
    log.administer(invitation(2, None)).unwrap();
    assert_eq!(invited(&mut log, "alice", 1), Ok(()));
    assert_eq!(log.claim("alice", 1, Admission::Invite, None), Ok(()), "who has a name keeps it");
    assert_eq!(log.claim("early", 9, Admission::Invite, None), Ok(()), "also from before the setting");
    log.administer(invitation(2, None)).unwrap();
    assert_eq!(invited(&mut log, "bob", 2), Ok(()), "made again, it is the same");
    assert_eq!(invited(&mut log, "carol", 3), Err(Code::WrongInvite), "it is used up");
    assert_eq!(log.claim("carol", 3, Admission::Open, None), Ok(()));
}

#[test]
fn each_claim_takes_one_use_of_its_invitation() {
    for uses in 1..=4 {
        let mut log = Log::new();
        log.administer(invitation(uses, None)).unwrap();
        let claims = ["alice", "bob", "carol", "dave", "erin"].into_iter().zip(1..);
        let result = claims.map(|(who, key)| log.claim(who, key, Admission::Invite, Some(INVITED)));
        assert_eq!(result.filter(Result::is_ok).count(), uses as usize);
    }
}

#[test]
fn an_invitation_is_for_its_name_and_its_time() {
    let mut log = Log::new();
    log.administer(invitation(1, Some("alice"))).unwrap();
    assert_eq!(log.claim("mallory", 1, Admission::Invite, Some(INVITED)), Err(Code::WrongInvite));
    log.unix_ms += DAY_MS + 10;
    assert_eq!(log.claim("alice", 1, Admission::Invite, Some(INVITED)), Err(Code::WrongInvite));
    assert!(log.service.is_unclaimed(&name("alice")), "a refusal leaves no trace");
}

#[test]
fn an_invitation_is_good_to_its_last_millisecond_and_no_longer() {
    let mut log = Log::new();
    log.administer(invitation(2, None)).unwrap();
    let until_ms = log.service.clock_ms() + DAY_MS;
    log.unix_ms = until_ms - 1;
    assert_eq!(log.claim("alice", 1, Admission::Invite, Some(INVITED)), Ok(()));
    assert_eq!(log.service.clock_ms(), until_ms);
    assert_eq!(log.claim("bob", 2, Admission::Invite, Some(INVITED)), Err(Code::WrongInvite));
}

#[test]
fn invitations_and_allowed_keys_are_bounded_and_old_ones_make_room() {
    let mut log = Log::with(Limits { invites: 2, allowed: 1, ..Limits::default() });
    let invite =
        |code| AdminChange::Invite { code: CodeHash([code; 32]), uses: 1, lasts_ms: DAY_MS, name: None };
    log.administer(invite(1)).unwrap();
    let until_ms = log.service.clock_ms() + DAY_MS;
    log.administer(invite(2)).unwrap();
    assert_eq!(log.administer(invite(3)), Err(Code::LimitReached));
    log.unix_ms = until_ms - 1;
    assert_eq!(
        log.administer(invite(3)),
        Err(Code::LimitReached),
        "the first is good to its last millisecond"
    );
    assert_eq!(log.service.clock_ms(), until_ms);
    assert!(log.administer(invite(3)).is_ok());
    let allow = |key| AdminChange::Allow { key: DeviceKey([key; 32]) };
    log.administer(allow(1)).unwrap();
    assert!(log.administer(allow(1)).is_ok(), "once more is the same");
    assert_eq!(log.administer(allow(2)), Err(Code::LimitReached));
}

#[test]
fn profiles_have_a_limit_and_an_existing_profile_can_connect_beyond_it() {
    let mut log = Log::with(Limits { profiles: 2, ..Limits::default() });
    log.open("alice", 1);
    log.open("bob", 2);
    assert_eq!(log.claim("carol", 3, Admission::Open, None), Err(Code::LimitReached));
    assert!(!log.has_profile("carol"));
    let another = log.connect("alice", device(1, 1), 9, true);
    assert!(matches!(another[..], [Applied::SessionOpened { .. }]), "{another:?}");
    log.administer(AdminChange::RemoveProfile { name: name("bob") }).unwrap();
    assert_eq!(log.claim("carol", 3, Admission::Open, None), Ok(()), "a place is free");
}

#[test]
fn where_keys_are_allowed_only_they_claim_names() {
    let mut log = Log::new();
    let key = DeviceKey([1; 32]);
    assert_eq!(log.claim("alice", 1, Admission::Keys, None), Err(Code::KeyNotAllowed));
    log.administer(AdminChange::Allow { key }).unwrap();
    assert_eq!(log.claim("alice", 1, Admission::Keys, None), Ok(()));
    log.administer(AdminChange::Disallow { key }).unwrap();
    assert_eq!(log.claim("alice", 1, Admission::Keys, None), Ok(()), "it has the name");
    assert_eq!(log.claim("bob", 2, Admission::Keys, None), Err(Code::KeyNotAllowed));
    assert_eq!(log.administer(AdminChange::Disallow { key }), Err(Code::KeyNotAllowed));
}
