//! `recado demo`: runs a few bots, each an ordinary client, that send notifications.

use crossbeam::channel;
use recado_client::{Client, Content, Name, Options, Priority, Receipt, Topic};
use serde_json::json;

use super::Context;
use crate::cli::Demo;
use crate::exit::Failure;

/// Names of the bots, each with the channel that it sends to.
const BOTS: [(&str, &str); 8] = [
    ("demo.ada", "#demo-ops"),
    ("demo.linus", "#demo-deploys"),
    ("demo.grace", "#demo-ops"),
    ("demo.ken", "#demo-coffee"),
    ("demo.barbara", "#demo-deploys"),
    ("demo.edsger", "#demo-coffee"),
    ("demo.radia", "#demo-ops"),
    ("demo.leslie", "#demo-deploys"),
];

/// Notifications of the bots: title, text, priority, tag.
const NOTIFICATIONS: [(&str, &str, u8, &str); 10] = [
    ("", "Good morning. Everything is up, nothing is on fire.", 3, ""),
    ("Backup done", "412 GB in 41 minutes; the copy has been read back.", 2, "backup"),
    ("Disk nearly full", "/var on db-2 is at 93 %. The largest is /var/log/journal with 61 GB.", 4, "disk"),
    ("", "Deployed build 1841 to staging. Notes: https://example.com/builds/1841", 3, "deploy"),
    ("", "Coffee is ready on the second floor.", 3, "coffee"),
    ("db-2 is down", "No answer for 30 s. The replica has taken over; nothing was lost.", 5, "db"),
    ("", "db-2 is back after a reboot. Looking into why.", 3, "db"),
    ("Certificate", "The one of www.example.com expires in 14 days.", 3, "tls"),
    ("", "Build 1842 is green: 2 318 tests in 94 s.", 2, "build"),
    ("", "That is all from me for today.", 3, ""),
];

pub(super) fn run(context: &Context, demo: Demo) -> Result<(), Failure> {
    // The bots' keys are kept, so that the next demo can use their names again.
    let state = context.config.state.join("demo");
    let mut bots = Vec::new();
    for (name, channel) in BOTS.into_iter().take(demo.bots.into()) {
        let options = Options::new(name_of(name)?, context.config.servers()?.to_vec(), &state)
            .trust(context.trust.clone())
            .timeout(context.left());
        bots.push((Client::connect(options.send_only())?, to(channel)?));
    }
    greet(context, &bots)?;
    context.out.put(json!({"bots": bots.len(), "count": demo.count}), || {
        format!(
            "{} bots send {} notifications each. Follow them: recado follow '#demo-ops' '#demo-deploys' '#demo-coffee' \
             @demo.ada\nThese channels, the bots' profiles and what they send stay in the cluster afterwards.",
            bots.len(),
            demo.count
        )
    })?;
    let followed = follow_in_a_row(&bots)?;
    let ended = talk(context, &bots, demo);
    for (client, topic) in &followed {
        // The bots unfollow also after a failure, so that they follow nobody after the demo.
        wait(context, &client.unfollow(topic.clone())?)?;
    }
    ended
}

/// Sends a greeting to the inbox of the profile that runs the demo, if one is configured.
fn greet(context: &Context, bots: &[(Client, Topic)]) -> Result<(), Failure> {
    let (Ok(me), Some((first, _))) = (context.config.profile(), bots.first()) else { return Ok(()) };
    let body = format!("Hello @{me}, the demo has begun. Write /join #demo-ops to follow along.");
    let receipt = first.send(Some(Topic::Inbox(me)), said("", &body, 3, "demo"))?;
    // The greeting is refused if nobody has claimed the profile yet. This is no failure of the demo.
    let _ = receipt.wait(context.timeout_of_each());
    Ok(())
}

/// Makes each bot follow the one before it, and returns which client follows what.
fn follow_in_a_row(bots: &[(Client, Topic)]) -> Result<Vec<(&Client, Topic)>, Failure> {
    let mut followed = Vec::new();
    for pair in bots.windows(2) {
        let [(before, _), (client, _)] = pair else { continue };
        let topic = Topic::Feed(before.profile().clone());
        client.follow(topic.clone())?;
        followed.push((client, topic));
    }
    Ok(followed)
}

fn talk(context: &Context, bots: &[(Client, Topic)], demo: Demo) -> Result<(), Failure> {
    let interrupt = context.interrupt()?;
    let ticks = channel::tick(demo.every.max(std::time::Duration::from_millis(1)) / u32::from(demo.bots));
    let mut receipts: Vec<Receipt> = Vec::new();
    for round in 0..usize::from(demo.count) {
        for (nth, (client, channel)) in bots.iter().enumerate() {
            let (title, body, priority, tag) = NOTIFICATIONS[(round + nth * 3) % NOTIFICATIONS.len()];
            // Every third notification goes to the bot's own followers.
            let topic = (round % 3 != 2).then(|| channel.clone());
            receipts.push(client.send(topic, said(title, body, priority, tag))?);
            // The channel of a ticker never disconnects.
            let _ = ticks.recv();
            if let Some(signal) = interrupt.arrived() {
                return Err(Failure::Signal(signal));
            }
        }
    }
    let count = receipts.len();
    let unknown = receipts.iter().filter(|receipt| receipt.wait(super::TIMEOUT).is_err()).count();
    let value = json!({"sent": count, "unacknowledged": unknown});
    Ok(context.out.put(value, || match unknown {
        0 => format!("{count} notifications were sent and acknowledged."),
        n => format!("{count} notifications were sent; {n} were not acknowledged."),
    })?)
}

fn said(title: &str, body: &str, priority: u8, tag: &str) -> Content {
    Content {
        title: (!title.is_empty()).then(|| title.to_owned()),
        priority: Priority::try_from(priority).unwrap_or_default(),
        tags: if tag.is_empty() { Vec::new() } else { vec![tag.to_owned()] },
        body: body.into(),
        extra: Vec::new(),
    }
}

fn name_of(text: &str) -> Result<Name, Failure> {
    text.parse().map_err(|error: recado_client::NameError| Failure::Other(error.to_string()))
}

fn to(text: &str) -> Result<Topic, Failure> {
    Topic::to_send(text).map_err(|error| Failure::Other(error.to_string()))
}

fn wait(context: &Context, receipt: &Receipt) -> Result<(), Failure> {
    use recado_client::ReceiptError;
    match receipt.wait(context.timeout_of_each()) {
        // A refusal says that the bot does not follow the topic, which is the goal.
        Ok(_) | Err(ReceiptError::Refused(_)) => Ok(()),
        Err(error) => Err(Failure::Request { error, topic: None }),
    }
}
