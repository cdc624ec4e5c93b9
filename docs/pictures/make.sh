#!/usr/bin/env bash
# Makes the pictures of README.md and docs/OPERATING.md again, from the real program: bash docs/pictures/make.sh
#
# Needs tmux and python3. Starts three servers on free ports, two people and some bots, and kills the
# primary while somebody writes.
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo build --release --workspace
bin="${CARGO_TARGET_DIR:-target}/release"
bin=$(cd "$bin" && pwd)
pictures=$PWD/docs/pictures
work=$(mktemp -d)
tmux="tmux -L recado-pictures-$$ -f /dev/null"
declare -A server
finish() {
    $tmux kill-server 2>/dev/null || true
    kill "${server[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

port=$(python3 -c 'import random; print(random.randrange(20000, 30000))')
(cd "$work" && "$bin/recadod" init --servers 3 --port "$port" --dir cluster >/dev/null)
for n in 1 2 3; do
    "$bin/recadod" serve --config "$work/cluster/server-$n/recado.toml" >"$work/$n.log" 2>&1 &
    server[$n]=$!
done
export RECADO_SERVERS="127.0.0.1:$port,127.0.0.1:$((port + 1)),127.0.0.1:$((port + 2))"
export HOME=$work PATH=$bin:$PATH TZ=UTC

# Looks until the screen shows something, for half a minute at most.
await() {
    for _ in $(seq 300); do
        if $tmux capture-pane -p -t alice 2>/dev/null | grep -q -- "$1"; then return; fi
        sleep 0.1
    done
    $tmux capture-pane -p -t alice
    echo "the screen never showed: $1" >&2
    exit 1
}
type_in() { $tmux send-keys -t alice -l "$1"; }
enter() { type_in "$1" && $tmux send-keys -t alice Enter; }
picture() { $tmux capture-pane -e -N -p -t alice | python3 "$pictures/svg.py" 110 >"$pictures/$1.svg"; }

recado --as alice claim >/dev/null
$tmux new-session -d -s alice -x 110 -y 32 \
    "env TERM=tmux-256color COLORTERM=truecolor recado --as alice"
await connected
recado --as alice demo --every 400ms >"$work/demo.log" &
await 'demo has begun'
for topic in '#demo-ops' '#demo-deploys' '#demo-coffee' '@demo.ada'; do
    until recado --as alice follow "$topic" >/dev/null 2>&1; do :; done
done
recado --as alice send --to '#demo-ops' 'I look after db-2 today.' >/dev/null
$tmux kill-session -t alice
$tmux new-session -d -s alice -x 110 -y 32 \
    "env TERM=tmux-256color COLORTERM=truecolor recado --as alice"
await 'db-2 is down'
await '#demo-coffee  '
enter '/go #demo-ops'
await '#demo-ops'
await 'db-2 is down'
enter '/go'
type_in 'I am on it: '
sleep 2
picture list

primary=$(recado status | awk '$2 == "primary" { print $NF }')
kill -9 "$primary"
type_in 'it has come back by itself'
$tmux send-keys -t alice Enter
await 'is primary now'
sleep 1
$tmux send-keys -t alice F2
await 'stopped answering'
picture failover
echo "docs/pictures/list.svg and failover.svg are new"
