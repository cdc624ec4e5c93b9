//! `recadod init`: writes the files of a new cluster, one directory for each server, ready to run.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use recado::config::file::{check_addresses, render};
use recado::config::secret::ClusterSecret;
use recado::config::{Cluster, Member};
use recado::server::cluster_key;
use recado_log::journal::{Directory, Journal, Meta};
use recado_proto::id::{ClusterId, Fingerprint, MEMBERS_MAX, NodeId};
use recado_sys::durable;
use recado_sys::random;

/// The difference between a server's peer port and its client port.
const PEER_OFFSET: u16 = 1000;

/// The members: `servers` of them on 127.0.0.1 on consecutive ports, or one on each host.
pub(super) fn plan((servers, hosts): (Option<u16>, &[IpAddr]), port: u16) -> Result<Vec<Member>> {
    let clients: Vec<SocketAddr> = match servers {
        Some(servers) => {
            (port..).take(servers.into()).map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect()
        }
        None => hosts.iter().map(|host| (*host, port).into()).collect(),
    };
    if clients.len() > MEMBERS_MAX {
        bail!("{} servers; a cluster has at most {}", clients.len(), MEMBERS_MAX);
    }
    for (n, client) in clients.iter().enumerate() {
        if clients.iter().take(n).any(|earlier| earlier == client) {
            bail!("--host {} is given twice; each server needs its own", client.ip());
        }
    }
    let members = (1..).zip(clients).map(|(id, client)| {
        let peer = SocketAddr::new(client.ip(), client.port() + PEER_OFFSET);
        Member { id: NodeId(id), client, peer }
    });
    let members: Vec<Member> = members.collect();
    check_addresses(&members)?;
    Ok(members)
}

/// The directory that the package gives its unit to write in.
const PACKAGE_STATE: &str = "/var/lib/recado";

/// The directory of the servers' files until all are complete. An interrupted `init` leaves it behind.
const UNFINISHED: &str = "unfinished";

/// Writes the files into `dir`, which must be new or empty, and returns instructions once everything is on
/// disk. A server's directory is complete or does not exist: one without its promises would look like a
/// server that lost its disk.
///
/// `kept_in` is the absolute path where a machine will keep the data, if that is not beside `recado.toml`.
pub(super) fn run(dir: &Path, members: &[Member], kept_in: Option<&Path>) -> Result<String> {
    if let Some(path) = kept_in
        && (path.is_relative() || path.to_str().is_none_or(|path| path.contains(['"', '\\'])))
    {
        bail!("--data {} is not an absolute path that recado.toml can name", path.display());
    }
    if kept_in == Some(Path::new(PACKAGE_STATE)) {
        bail!(
            "--data {PACKAGE_STATE} exists where the package is installed: give a directory in it that does not"
        );
    }
    if dir.exists()
        && fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?.next().is_some()
    {
        if dir.join(UNFINISHED).exists() {
            bail!(
                "an interrupted `recadod init` left {}: unless a server of it has run, delete it and try again",
                dir.display()
            );
        }
        bail!(
            "{} is not empty; give `recadod init` a new directory (promises and data must not be overwritten)",
            dir.display()
        );
    }
    let id = ClusterId(u64::from_le_bytes(random::bytes()?).max(1));
    let secret = ClusterSecret::new(random::bytes()?);
    let unfinished = dir.join(UNFINISHED);
    for member in members {
        let home = unfinished.join(member.id.to_string());
        let data = home.join("data");
        durable::make_dir(&data).with_context(|| format!("cannot create {}", data.display()))?;
        let cluster = Cluster { id, me: member.id, members: members.to_vec() };
        let mut text = render(&cluster);
        if let Some(path) = kept_in {
            text = text.replacen("\ndata = \"data\"\n", &format!("\ndata = \"{}\"\n", path.display()), 1);
        }
        write(&home.join("recado.toml"), &text)?;
        write(&home.join("cluster.secret"), &secret.to_file())?;
        let meta = Meta::new(id, member.id, members.iter().map(|member| member.id));
        let made = Directory::lock(&data).and_then(|disk| Journal::init(&disk, &meta));
        made.with_context(|| format!("cannot prepare {}", data.display()))?;
    }
    for member in members {
        let name = member.id.to_string();
        durable::rename(&unfinished.join(&name), &dir.join(&name))
            .with_context(|| format!("cannot move {name} into {}", dir.display()))?;
    }
    fs::remove_dir(&unfinished).with_context(|| format!("cannot delete {}", unfinished.display()))?;
    Ok(advice(dir, id, cluster_key(&secret).fingerprint(), members, kept_in))
}

fn advice(
    dir: &Path,
    id: ClusterId,
    fingerprint: Fingerprint,
    members: &[Member],
    kept_in: Option<&Path>,
) -> String {
    let one_machine = members.iter().all(|member| member.client.ip().is_loopback());
    let mut text = format!("cluster {id}: {} server(s) in {}\n", members.len(), dir.display());
    for member in members {
        let home = dir.join(member.id.to_string());
        let run = format!("recadod serve --config {}", home.join("recado.toml").display());
        // Writing to a String cannot fail.
        let _ = if let Some(kept_in) = kept_in {
            writeln!(
                text,
                "  {}: copy {} there, with its permissions (scp -pr), and as root, with the package installed:\n      \
                 test ! -e {data} && mv {id}/recado.toml {id}/cluster.secret /etc/recado/ && mv {id}/data {data} &&\n      \
                 rmdir {id} && chown -R recado: /etc/recado {data} && systemctl enable --now recadod",
                member.client.ip(),
                home.display(),
                id = member.id,
                data = kept_in.display()
            )
        } else if one_machine {
            writeln!(text, "  {run}")
        } else {
            writeln!(
                text,
                "  {}: copy {} there, with its permissions (scp -pr), and run\n      recadod serve --config {}/recado.toml",
                member.client.ip(),
                home.display(),
                member.id
            )
        };
    }
    if let Some(elsewhere) = kept_in.filter(|path| !path.starts_with(PACKAGE_STATE)) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "The package's unit may write in {PACKAGE_STATE} alone: with `systemctl edit recadod` add, under \
             [Service], ReadWritePaths={}",
            elsewhere.display()
        );
    }
    text.push_str(tolerates(members.len()));
    if !one_machine {
        text.push_str("Copy each directory to its own machine only, once, before its first start.\n");
        text.push_str("cluster.secret is the same in all of them; keep it 0600.\n");
    }
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "At the first connection of a client, compare this fingerprint of the cluster's key\n\
         (`recadod fingerprint` prints it again):\n  {fingerprint}"
    );
    text
}

/// The number of failures that a cluster of this size tolerates: it works while a majority of the servers
/// runs.
fn tolerates(servers: usize) -> &'static str {
    match servers {
        1 => {
            "One server tolerates no failure: all data is on one disk. Three tolerate the failure of any one.\n"
        }
        2 => {
            "Two servers tolerate NO failure: both must run for anything to be sent or delivered. Only the data\n\
             is there twice. Three tolerate the failure of any one.\n"
        }
        3 | 4 => "The cluster tolerates the failure of any one server.\n",
        5 | 6 => "The cluster tolerates the failure of any two servers.\n",
        7 | 8 => "The cluster tolerates the failure of any three servers.\n",
        _ => "The cluster tolerates the failure of any four servers.\n",
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    durable::create(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use recado::config::Config;
    use recado::config::file::ServerFile;

    use super::*;

    fn three() -> Vec<Member> {
        plan((Some(3), &[]), 10097).unwrap()
    }

    #[test]
    fn servers_on_one_machine_get_consecutive_ports() {
        let addrs: Vec<(String, String)> =
            three().iter().map(|member| (member.client.to_string(), member.peer.to_string())).collect();
        let expected = [("10097", "11097"), ("10098", "11098"), ("10099", "11099")];
        let expected = expected.map(|(c, p)| (format!("127.0.0.1:{c}"), format!("127.0.0.1:{p}")));
        assert_eq!(addrs, expected);
    }

    #[test]
    fn hosts_share_the_port_and_must_differ() {
        let hosts = ["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()];
        let members = plan((None, &hosts), 5000).unwrap();
        assert_eq!(members[1].client.to_string(), "127.0.0.3:5000");
        assert_eq!(members[1].peer.to_string(), "127.0.0.3:6000");
        assert!(plan((None, &[hosts[0], hosts[0]]), 5000).is_err());
        for nobody in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1"] {
            let message = plan((None, &[nobody.parse().unwrap()]), 5000).unwrap_err().to_string();
            assert!(message.contains(nobody) && message.contains("one machine's own"), "{message}");
        }
        let mixed = plan((None, &[hosts[0], "2001:db8::1".parse().unwrap()]), 5000).unwrap_err().to_string();
        assert!(mixed.contains("2001:db8::1") && mixed.contains("IPv4 and IPv6 are mixed"), "{mixed}");
    }

    #[test]
    fn every_server_gets_files_it_can_run_with() {
        let dir = tempfile::tempdir().unwrap();
        let output = run(dir.path(), &three(), None).unwrap();
        let mut secrets = Vec::new();
        for id in 1..=3u16 {
            let home = dir.path().join(format!("server-{id}"));
            let file = ServerFile::read(&home.join("recado.toml")).unwrap();
            assert_eq!(file.config.cluster.me, NodeId(id));
            assert_eq!(file.config.cluster.members, three());
            assert_eq!(file.config, Config::default_for(file.config.cluster.clone()));
            secrets.push(ClusterSecret::read(&file.secret).unwrap());
            assert!(output.contains(&home.join("recado.toml").display().to_string()), "{output}");
        }
        assert_eq!(secrets[0], secrets[1]);
        assert_eq!(secrets[0], secrets[2]);
        assert!(output.contains(&cluster_key(&secrets[0]).fingerprint().to_string()), "{output}");
    }

    #[test]
    fn a_directory_with_anything_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter"), "dear").unwrap();
        assert!(run(dir.path(), &three(), None).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_clusters_never_share_id_or_secret() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        run(one.path(), &three(), None).unwrap();
        run(two.path(), &three(), None).unwrap();
        let file = |dir: &Path| ServerFile::read(&dir.join("server-1/recado.toml")).unwrap();
        assert_ne!(file(one.path()).config.cluster.id, file(two.path()).config.cluster.id);
        assert_ne!(
            ClusterSecret::read(&file(one.path()).secret).unwrap(),
            ClusterSecret::read(&file(two.path()).secret).unwrap()
        );
    }

    #[test]
    fn init_distinguishes_the_files_of_an_interrupted_init_from_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), &three(), None).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "the servers and nothing else");
        let message = run(dir.path(), &three(), None).unwrap_err().to_string();
        assert!(message.contains("is not empty") && !message.contains("interrupted"), "{message}");
        // `init` was killed after the first server's files, or between two renames.
        for left in ["server-2/data", "server-3/data"] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join(UNFINISHED).join(left)).unwrap();
            let message = run(dir.path(), &three(), None).unwrap_err().to_string();
            assert!(message.contains("interrupted") && message.contains("delete it and"), "{message}");
        }
    }

    #[test]
    fn init_says_how_many_failures_the_cluster_tolerates() {
        let output = |servers| {
            let dir = tempfile::tempdir().unwrap();
            run(dir.path(), &plan((Some(servers), &[]), 10097).unwrap(), None).unwrap()
        };
        assert!(output(1).contains("One server tolerates no failure"));
        assert!(output(2).contains("Two servers tolerate NO failure"));
        for (servers, failures) in
            [(3, "one server"), (4, "one server"), (5, "two"), (8, "three"), (9, "four")]
        {
            assert!(
                output(servers).contains(&format!("tolerates the failure of any {failures}")),
                "{servers}"
            );
        }
    }

    #[test]
    fn servers_on_loopback_have_nothing_to_copy() {
        let hosts = ["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()];
        for members in [three(), plan((None, &hosts), 10097).unwrap()] {
            let dir = tempfile::tempdir().unwrap();
            let output = run(dir.path(), &members, None).unwrap();
            assert!(!output.to_lowercase().contains("copy") && output.contains("serve --config"), "{output}");
        }
    }

    #[test]
    fn init_names_the_directory_to_copy_to_each_machine() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let output = run(dir.path(), &plan((None, &hosts), 10097).unwrap(), None).unwrap();
        assert!(output.contains("192.0.2.2: copy") && output.contains("server-2"), "{output}");
    }

    #[test]
    fn the_data_directory_of_a_package_is_named_in_the_file_and_in_the_instructions() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let members = plan((None, &hosts), 10097).unwrap();
        let kept_in = Path::new("/var/lib/recado/data");
        let output = run(dir.path(), &members, Some(kept_in)).unwrap();
        assert!(output.contains("mv server-2/data /var/lib/recado/data"), "{output}");
        let file = ServerFile::read(&dir.path().join("server-2/recado.toml")).unwrap();
        assert_eq!(file.data, kept_in);
        assert!(dir.path().join("server-2/data").is_dir());
        for bad in ["data", "/var/\"/data", PACKAGE_STATE] {
            assert!(run(&dir.path().join("other"), &members, Some(Path::new(bad))).is_err(), "{bad}");
        }
    }
}
