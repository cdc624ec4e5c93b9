#!/usr/bin/env bash
# Builds recado and runs a cluster on this machine until Ctrl-C.
#
#   ./run.sh      as many servers as ./data was created for; three the first time: 127.0.0.1:10097, 10098, 10099
#                 (between servers: the port + 1000)
#   ./run.sh 5    five servers; they cannot use data that was created for three
#
# ./data holds everything that the servers store. It is created once. `recadod monitor` runs the servers, and starts
# one again that dies or hangs. Servers that were left running are adopted.
set -euo pipefail
cd "$(dirname "$0")"

data=data
found=0 # number of servers that ./data was created for
while [ -d "$data/server-$((found + 1))" ]; do found=$((found + 1)); done
servers=${1:-$((found > 0 ? found : 3))}
bin=${CARGO_TARGET_DIR:-target}/release
ready_within=30 # seconds until there is a primary
stop_within=20  # seconds for the end of the monitor, which stops the servers within ten

# Output to a terminal that is stopped (Ctrl-S) or gone must not block this script: a message that is not
# taken within a second is dropped. A signal ends the wait.
if command -v timeout >/dev/null; then
    say() {
        timeout --foreground 1 printf '%s\n' "$*" 2>/dev/null &
        wait $! || true
    }
else
    say() { printf '%s\n' "$*" 2>/dev/null || true; }
fi
die() { printf 'run.sh: %s\n' "$*" >&2; exit 1; }

usage="usage: ./run.sh [SERVERS]     (1 to 9; default: as many as ./data was created for, or three)"
case $#:$servers in
    *:-h | *:--help)
        say "$usage"
        exit 0
        ;;
    [01]:[1-9]) ;;
    *)
        say "$usage" >&2
        exit 2
        ;;
esac
command -v cargo >/dev/null || die "cargo is missing: install the Rust toolchain, see https://rustup.rs"

say "Building (the first time takes a few minutes) ..."
cargo build --release --locked -p recado -p recado-ui

# Files created from here on are readable by their owner only, and so are existing ones: they hold what
# users wrote.
umask 077
if [ -e "$data" ]; then
    chmod -R go= "$data" || die "others may read ./$data, and this user cannot change it"
fi

# The directory is created under another name first, so that ./data is complete or absent.
made_anew=false
if [ ! -e "$data" ]; then
    made_anew=true
    rm -rf "$data.new"
    "$bin/recadod" init --dir "$data.new" --servers "$servers" >/dev/null
    mv "$data.new" "$data"
    say "Created ./$data for $servers server(s)."
    found=$servers
fi
if [ "$found" -ne "$servers" ]; then
    die "./$data was created for $found server(s), not for $servers.
Run:                 ./run.sh $found
Or start anew:       rm -r $data && ./run.sh $servers     (deletes every profile and notification in it)"
fi

# Key that this cluster proves. Any other program that answers on these ports has another one.
key=$("$bin/recadod" fingerprint --config "$data/server-1/recado.toml" | sed -n 's/^key *//p') ||
    die "the files in ./$data cannot be used; the reason is above"

monitor= # its process id

start() {
    # With job control the monitor has its own process group, so that the terminal's Ctrl-C reaches only this
    # script, and the script then asks it once. It tells on its output what happens to the servers.
    set -m
    "$bin/recadod" monitor --dir "$data" 2>&1 </dev/null &
    monitor=$!
    disown # otherwise the shell prints a message of its own when it ends
    set +m
}

alive() { [ -n "$monitor" ] && kill -0 "$monitor" 2>/dev/null; }

# Waits briefly. A signal ends the wait.
moment() {
    sleep 0.2 &
    wait $! || true
}

# Prints the lines of the servers in what the monitor does: name, state, process id.
view() {
    "$bin/recado" --config /dev/null status --monitor "$data" 2>/dev/null | grep '^server-' || true
}

# Has the monitor stop all servers, and waits for it. A second signal makes them stop at once.
stop() {
    local deadline=$((SECONDS + stop_within))
    trap 'kill -TERM "$monitor" 2>/dev/null || true' INT TERM HUP
    if alive; then kill -TERM "$monitor" && kill -CONT "$monitor"; fi 2>/dev/null || true
    while alive; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            say "The monitor (pid $monitor) does not end; the servers may still run."
            return
        fi
        moment
    done
}

# Shows why a server did not start, stops the others, and exits.
give_up() {
    local log=$data/$1/log
    printf '\n%s did not start. The last lines of %s:\n\n' "$1" "$log" >&2
    tail -n 5 "$log" >&2 || true
    if grep -qi 'in use' "$log" 2>/dev/null; then
        printf '\nIts port or its data is in use: is another ./run.sh running? (pgrep -a recadod shows it)\n' >&2
    fi
    printf '\n' >&2
    stop
    exit 1
}

trap 'say ""; say "Stopping ..."; stop; exit 0' INT TERM HUP

start

addresses=$(for n in $(seq "$servers"); do printf '127.0.0.1:%s,' "$((10096 + n))"; done)

# Prints the line of the primary in `recado status --json`, or nothing if there is none. It queries these
# servers, whatever the environment or the user's configuration names.
primary_line() {
    env -u RECADO_AS -u RECADO_SERVERS \
        "$bin/recado" --config /dev/null --server "${addresses%,}" --cluster-key "$key" status --json 2>/dev/null |
        sed 's/: *{[^{}]*}/:null/g' | tr '}' '\n' | grep -E '"role": *"primary"' || true
}
field() { printf '%s' "$1" | sed -n "s/.*\"$2\": *\"\{0,1\}\([^\",]*\).*/\1/p"; }

deadline=$((SECONDS + ready_within))
while :; do
    line=$(primary_line)
    # The monitor has said why it ended: another one runs these servers.
    alive || exit 1
    all=$(view)
    waits=$(printf '%s\n' "$all" | awk '$2 == "waits" { print $1; exit }')
    if [ -n "$waits" ]; then give_up "$waits"; fi
    # A primary with another process id belongs to another cluster on the same ports.
    case " $(printf '%s\n' "$all" | awk '{ printf "%s ", $3 }')" in
        *" $(field "$line" pid) "*) if [ -n "$line" ]; then break; fi ;;
    esac
    if [ "$SECONDS" -ge "$deadline" ]; then
        say "There is no primary after $ready_within s. See $data/server-*/log."
        stop
        exit 1
    fi
    moment
done

# The cluster serves while a majority of its servers runs.
case $servers in
    1) tolerated="all data is on one disk, and no failure is tolerated" ;;
    2) tolerated="NO failure is tolerated, because both must run; three tolerate the failure of any one" ;;
    *) tolerated="the failure of any $(((servers - 1) / 2)) is tolerated" ;;
esac

# Who has used an earlier cluster at these addresses is refused by this one until that one is forgotten.
if $made_anew; then
    known=$(env -u RECADO_AS -u RECADO_SERVERS "$bin/recado" cluster list --json 2>/dev/null || true)
    for n in $(seq "$servers"); do
        address=127.0.0.1:$((10096 + n))
        case $known in
            *"\"$address\""*)
                say "
Data was made anew, and recado remembers an earlier cluster at $address. Forget it before the first command:

    $bin/recado cluster forget $address"
                break
                ;;
        esac
    done
fi

say "$(cat <<END

$servers server(s) run: $tolerated. Primary: server $(field "$line" id), $(field "$line" address), pid $(field "$line" pid).
Logs: $data/server-*/log

Use the cluster from a second terminal:

    cd "$PWD"
    export PATH="$(cd "$bin" && pwd):\$PATH"
    recado                                 # the full screen; it asks for your name, and keeps it
    recado status
    recado --as alice send 'hello'

Ctrl-C stops all servers.
END
)"

while :; do
    if ! alive; then
        say "The monitor (pid $monitor) exited; starting it again. The servers run meanwhile."
        start
        for _ in $(seq 10); do moment; done
    fi
    moment
done
