//! The vectors of `docs/PROTOCOL.md`: each is derived by the code from the inputs that stand beside it.

use std::fmt::Write;
use std::time::Duration;

use recado_client::EnrolmentCode;
use recado_proto::entropy::Entropy;
use recado_proto::envelope::{Class, Envelope, Header, OUTER_LEN};
use recado_proto::handshake::{self, Retry};
use recado_proto::id::{
    BootId, ClusterId, DeviceId, DeviceKey, Incarnation, Moment, Name, NodeId, Op, Seq, SessionId, View,
};
use recado_proto::link::Link;
use recado_proto::noise::{self, Initiation, Prologue};
use recado_proto::packet::{
    AcceptConn, Connect, Coordinator, Home, OptionalFields, Position, Resume, ResumeOk, ToClient, ToServer,
};
use recado_proto::seal::{Aead, ClusterKeys, Direction, Key, PacketKeys};
use recado_proto::{DATAGRAM_BASE, codec};

use super::{hex, read};

/// A vector: its name and its bytes.
type Vector = (String, String);

/// The vectors that stand in the blocks of the section: a name, two or more spaces and digits, or a name
/// alone with the digits in indented lines below it.
fn written() -> Vec<Vector> {
    let document = read("docs/PROTOCOL.md");
    let (_, section) = document.split_once("\n## 19. Vectors\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut vectors: Vec<Vector> = Vec::new();
    for block in section.split("```text\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            let (name, digits) = line.split_once("  ").unwrap_or((line, ""));
            if !name.is_empty() {
                vectors.push((name.to_owned(), String::new()));
            }
            vectors.last_mut().unwrap().1.push_str(&digits.replace(' ', ""));
        }
    }
    vectors
}

/// The ephemeral private key that a side of the handshake draws from entropy with this seed.
fn ephemeral(seed: [u8; 32]) -> Key {
    Key::new(Entropy::new(Entropy::new(seed).bytes()).bytes())
}

/// `N` bytes that count up from `first`.
fn counting<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|at| first + at as u8)
}

/// The bytes inside the seal of a datagram.
fn inside(keys: &PacketKeys, datagram: &[u8]) -> Vec<u8> {
    keys.clone().open(Envelope::peek(datagram).unwrap().number, OUTER_LEN, datagram).unwrap()
}

fn derived() -> Vec<Vector> {
    let mut vectors: Vec<Vector> = Vec::new();
    let mut add = |name: &str, bytes: &[u8]| vectors.push((name.to_owned(), hex(bytes)));

    // ---- keys
    let secret = counting::<32>(0);
    let keys = ClusterKeys::new(&secret);
    let (cluster_private, admin_private) = (keys.cluster_private(), keys.admin_private());
    let cluster_key = noise::public(&cluster_private);
    let device_private = Key::new(counting(0x20));
    let device = DeviceKey(noise::public(&device_private));
    add("cluster secret", &secret);
    add("cluster private key", cluster_private.as_bytes());
    add("cluster public key", &cluster_key);
    add("administrator private key", admin_private.as_bytes());
    add("administrator public key", &noise::public(&admin_private));
    add("device private key", device_private.as_bytes());
    add("device public key", &device.0);

    // ---- codes
    let alice: Name = "alice".parse().unwrap();
    let code: EnrolmentCode = "7K3Q9-01WZP".parse().unwrap();
    add("enrolment hash", &code.hash(&alice).0);
    add("invitation hash", &code.invite_hash().0);

    // ---- HELLO and RETRY
    let (cluster, server) = (ClusterId(0x0102_0304_0506_0708), NodeId(3));
    let (incarnation, boot_id) = (Incarnation(7), BootId(counting(0x40)));
    let (echo, cookie) = (0x5051_5253_5455_5657_u64, counting::<16>(0x60));
    add("cluster id", &cluster.0.to_be_bytes());
    add("server id", &server.0.to_be_bytes());
    add("incarnation", &incarnation.0.to_be_bytes());
    add("boot id", &boot_id.0);
    add("echo", &echo.to_be_bytes());
    add("cookie", &cookie);
    let of_client = Envelope {
        class: Class::Handshake,
        cluster,
        session: SessionId::default(),
        node: None,
        incarnation: Incarnation(0),
        number: 0,
    };
    let of_server = Envelope { node: Some(server), incarnation, ..of_client };
    add("HELLO", &handshake::hello(&Envelope { cluster: ClusterId(0), ..of_client }, echo));
    add("RETRY", &handshake::retry(&of_server, &Retry { echo, cookie, boot_id, cluster_key }));

    // ---- INITIATION
    let connect = ToServer::Connect(Connect {
        device: DeviceId { key: device, slot: 0 },
        profile: alice,
        receives: true,
        nonce: 9,
        fresh: true,
        code: None,
        invite: None,
        aeads: 0,
        options: OptionalFields::NONE,
    });
    let (client_seed, server_seed) = ([1; 32], [2; 32]);
    let client_ephemeral = ephemeral(client_seed);
    let prologue = Prologue { cluster, server, boot_id };
    let load = handshake::load(std::slice::from_ref(&connect));
    let (mut initiation, message) =
        Initiation::new(prologue, &cluster_key, &device_private, &load, &mut Entropy::new(client_seed))
            .unwrap();
    assert_eq!(message[..32], noise::public(&client_ephemeral), "message 1 begins with the ephemeral key");
    let prologue_bytes =
        [&b"recado 1"[..], &cluster.0.to_be_bytes(), &server.0.to_be_bytes(), &boot_id.0].concat();
    let connect = codec::encode(&connect);
    let (used, zeros) = load.split_at(2 + 2 + connect.len());
    assert!(zeros.iter().all(|byte| *byte == 0), "zeros follow the packet of the load");
    add("prologue", &prologue_bytes);
    add("CONNECT", &connect);
    add("load without its zeros", used);
    add("client ephemeral private key", client_ephemeral.as_bytes());
    add("INITIATION", &handshake::initiation(&of_client, &cookie, &message));

    // ---- ANSWER
    let server_ephemeral = ephemeral(server_seed);
    let (authenticated, _, reply) =
        noise::answer(prologue, &cluster_private, &message, &mut Entropy::new(server_seed)).unwrap();
    assert_eq!(authenticated, device);
    assert_eq!(reply.opening[..32], noise::public(&server_ephemeral));
    assert_eq!(initiation.read_response(&reply.opening).as_ref(), Ok(&reply.key));
    let (session, view) = (SessionId(Op(5)), View::new(1, server));
    let session_secret = keys.session_secret(session, device, 9, Aead::ChaCha20Poly1305);
    let member = |id: u16| (NodeId(id), ([127, 0, 0, 1], 10_096 + id).into());
    let coordinator = Coordinator {
        view,
        members: (1..=3).map(member).collect(),
        roles: Vec::new(),
        options: OptionalFields::NONE,
    };
    let accept = ToClient::AcceptConn(AcceptConn {
        nonce: 9,
        session,
        coordinator: coordinator.clone(),
        secret: session_secret.key().clone(),
        aead: Aead::ChaCha20Poly1305,
        options: OptionalFields::NONE,
    });
    let accept = codec::encode(&accept);
    let number = incarnation.0 << 32 | 1;
    let header = Header { ack: None, view };
    add("server ephemeral private key", server_ephemeral.as_bytes());
    add("message 2", &reply.opening);
    add("answer key", reply.key.as_bytes());
    add("session id", &session.0.0.to_be_bytes());
    add("session secret", session_secret.key().as_bytes());
    add("ACCEPT_CONN", &accept);
    add("ANSWER", &handshake::answer(&Envelope { number, ..of_server }, &reply, &header, &[accept]));

    // ---- RESUME and RESUME_OK
    let to_server = session_secret.of_session(Direction::ToServer, server, boot_id);
    let to_client = session_secret.of_session(Direction::ToClient, server, boot_id);
    let resume = ToServer::Resume(Resume {
        cursor: None,
        credit: 256,
        home: Home::PRIMARY,
        options: OptionalFields::NONE,
    });
    let resumed = ToClient::ResumeOk(ResumeOk {
        created_op: session.0,
        last_seq: Seq(0),
        coordinator,
        cursor: Position::of(session.0),
        keepalive_ms: 2_000,
        options: OptionalFields::NONE,
    });
    let now = Moment(0) + Duration::from_secs(1);
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    let mut client = Link::new(Envelope { class: Class::Client, session, ..of_client }, to_server.clone());
    client.transmit(now, view, &[resume, ToServer::Padding], None, &mut asked);
    let of_server = Envelope { class: Class::Client, session, ..of_server };
    let mut link = Link::starting_at(of_server, to_client.clone(), number);
    assert!(link.receive(now, 1, None));
    link.transmit(now, view, &[resumed], None, &mut answered);
    add("key to server, phase 0", to_server.of_phase(0).as_bytes());
    add("key to client, phase 0", to_client.of_phase(0).as_bytes());
    add("inside RESUME", &inside(&to_server, &asked[0]));
    add("RESUME", &asked[0]);
    add("inside RESUME_OK", &inside(&to_client, &answered[0]));
    add("RESUME_OK", &answered[0]);
    assert!([asked, answered].iter().flatten().all(|datagram| datagram.len() <= DATAGRAM_BASE));
    vectors
}

/// The vectors as the blocks of the document have them.
fn shown(vectors: &[Vector]) -> String {
    let mut text = String::new();
    for (name, digits) in vectors {
        if digits.len() <= 80 {
            writeln!(text, "{name:<30}{digits}").unwrap();
            continue;
        }
        writeln!(text, "{name}").unwrap();
        for line in digits.as_bytes().chunks(96) {
            writeln!(text, "  {}", String::from_utf8_lossy(line)).unwrap();
        }
    }
    text
}

#[test]
fn the_code_derives_every_vector_of_the_document() {
    let (written, derived) = (shown(&written()), shown(&derived()));
    assert!(written == derived, "the blocks of section 19 of docs/PROTOCOL.md are to be:\n{derived}");
}
