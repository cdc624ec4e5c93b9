#!/usr/bin/env bash
# Builds recado and runs a cluster on this machine until Ctrl-C.
#
#   ./run.sh      as many servers as ./data was created for; three the first time: 127.0.0.1:10097, 10098, 10099
#                 (between servers: the port + 1000)
#   ./run.sh 5    five servers; they cannot use data that was created for three
#
# ./data holds everything that the servers store. It is created once. A server that dies is started again.
set -euo pipefail
cd "$(dirname "$0")"

data=data
found=0 # number of servers that ./data was created for
while [ -d "$data/server-$((found + 1))" ]; do found=$((found + 1)); done
servers=${1:-$((found > 0 ? found : 3))}
bin=${CARGO_TARGET_DIR:-target}/release
ready_within=30 # seconds until there is a primary
stop_within=10  # seconds for a clean stop
pause_max=60    # seconds, the longest wait before a server that keeps dying is started again

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
# The servers inherit the lock, so that it is also held by those that a killed run.sh left behind.
if command -v flock >/dev/null; then
    exec 9>"$data/run.lock"
    flock -n 9 || die "./$data is in use by another ./run.sh, or by servers that a killed one left running.
List them:           pgrep -a recadod
Stop them:           kill PID ...     (an orderly stop; nothing acknowledged is lost)"
fi

if [ "$found" -ne "$servers" ]; then
    die "./$data was created for $found server(s), not for $servers.
Run:                 ./run.sh $found
Or start anew:       rm -r $data && ./run.sh $servers     (deletes every profile and notification in it)"
fi

# Key that this cluster proves. Any other program that answers on these ports has another one.
key=$("$bin/recadod" fingerprint --config "$data/server-1/recado.toml" | sed -n 's/^key *//p') ||
    die "the files in ./$data cannot be used; the reason is above"

# Per server: pid is its process id, 0 while it is dead; due is when it is started again, in seconds of this
# script; pause is the delay before the restart after its next death; born is when it was started.
pid=() due=() pause=() born=()

start() {
    # With job control each server has its own process group, so that the terminal's Ctrl-C reaches only
    # this script, and the script then asks each server once.
    set -m
    NO_COLOR=1 "$bin/recadod" serve --config "$data/server-$1/recado.toml" \
        >>"$data/server-$1/log" 2>&1 </dev/null &
    pid[$1]=$!
    disown # otherwise the shell prints a message of its own when the server dies
    set +m
    born[$1]=$SECONDS
}

alive() { [ "${pid[$1]}" -ne 0 ] && kill -0 "${pid[$1]}" 2>/dev/null; }

# Waits briefly. A signal ends the wait.
moment() {
    sleep 0.2 &
    wait $! || true
}

all_gone() {
    local n
    for n in $(seq "$servers"); do
        if alive "$n"; then return 1; fi
    done
}

signal_all() {
    local n
    for n in $(seq "$servers"); do
        if [ -n "${pid[$n]:-}" ] && alive "$n"; then kill "-$1" "${pid[$n]}" 2>/dev/null || true; fi
    done
}

# Asks all servers to stop, and waits for them. A second signal makes them stop at once.
stop() {
    local deadline=$((SECONDS + stop_within)) n
    for n in $(seq "$servers"); do pid[$n]=${pid[$n]:-0}; done
    trap 'signal_all TERM' INT TERM HUP
    signal_all TERM
    signal_all CONT # a server that was stopped with SIGSTOP must handle SIGTERM too
    until all_gone; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            signal_all KILL
            say "Some servers did not stop within $stop_within s and were killed. Nothing acknowledged is lost."
            return
        fi
        moment
    done
    say "All servers stopped."
}

# Shows why a server did not start, stops the others, and exits.
give_up() {
    printf '\nserver-%s did not start. The last lines of %s:\n\n' "$1" "$data/server-$1/log" >&2
    tail -n 5 "$data/server-$1/log" >&2
    if grep -qi 'in use' "$data/server-$1/log"; then
        printf '\nIts port or its data is in use: is another ./run.sh running? (pgrep -a recadod shows it)\n' >&2
    fi
    printf '\n' >&2
    stop
    exit 1
}

trap 'say ""; say "Stopping ..."; stop; exit 0' INT TERM HUP

for n in $(seq "$servers"); do
    if [ -e "$data/server-$n/log" ]; then mv "$data/server-$n/log" "$data/server-$n/log.old"; fi
    pause[n]=2 due[n]=0
    start "$n"
done

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
    for n in $(seq "$servers"); do alive "$n" || give_up "$n"; done
    # A primary with another process id belongs to another cluster on the same ports.
    case " ${pid[*]} " in
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
    for n in $(seq "$servers"); do
        if alive "$n"; then continue; fi
        if [ "${pid[$n]}" -ne 0 ]; then
            if [ $((SECONDS - born[n])) -ge "$pause_max" ]; then pause[n]=2; fi
            say "server-$n (pid ${pid[$n]}) exited; restarting it in ${pause[$n]} s."
            due[n]=$((SECONDS + pause[n]))
            pause[n]=$((pause[n] * 2 > pause_max ? pause_max : pause[n] * 2))
            pid[n]=0
        elif [ "$SECONDS" -ge "${due[$n]}" ]; then
            start "$n"
            say "server-$n runs again (pid ${pid[$n]})."
        fi
    done
    moment
done
