#!/usr/bin/env bash
# Measures recado and its peers in turn, with the same loops (recado-bench), and prints ratios:
#
#     bash benches/peers.sh [--install] [--seconds S] [--followers "1 10 100 1000"] [--in-flight "1 16 256"]
#
# Peers: Redis (PUBLISH, and SET with WAIT), NATS, NATS JetStream, Mosquitto: those that are installed.
# `--install` installs them from Debian's packages (as root). Everything runs on this machine, in a temporary
# directory, on free ports of 127.0.0.1, and ends with the script. Each peer runs as it comes, except that
# JetStream and Redis have three servers for acknowledged messages, as recado has.
#
# What an acknowledgement means differs: recado and JetStream tell after a majority has stored a message
# (recado fsyncs it first; JetStream, as it comes, within two minutes), Redis WAIT after two replicas have it
# in memory, Redis PUBLISH, NATS and Mosquitto after one server has it in memory. Redis PUBLISH and NATS drop
# what a slow subscriber does not take; Mosquitto at QoS 0 too.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=3 followers="1 10 100 1000" in_flight="1 16 256" window=16
while [ $# -gt 0 ]; do
    case $1 in
    --install)
        apt-get update -qq
        # No service of theirs is to start: this script starts its own.
        RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            redis-server nats-server mosquitto >/dev/null
        ;;
    --seconds) seconds=$2 && shift ;;
    --followers) followers=$2 && shift ;;
    --in-flight) in_flight=$2 && shift ;;
    *)
        sed -n '2,5p' "$0" >&2
        exit 2
        ;;
    esac
    shift
done

cargo build --release --locked -p recado -p recado-bench
bench=${CARGO_TARGET_DIR:-target}/release/recado-bench
dir=$(mktemp -d)
pids=()
stop() {
    if [ ${#pids[@]} -gt 0 ]; then
        kill "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    fi
    pids=()
}
trap 'stop; rm -rf "$dir"' EXIT

# A port of 127.0.0.1 that nothing listens on, below the ephemeral ones.
port() {
    local port
    while :; do
        port=$((12000 + RANDOM % 18000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}
listens() {
    local left=200
    until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        left=$((left - 1))
        [ $left -gt 0 ] || { echo "nothing listens on port $1" >&2 && exit 1; }
        sleep 0.05
    done
}
start() { "$@" >>"$dir/log" 2>&1 & pids+=($!); }
field() { grep -o "\"$1\":[0-9.]*" | head -1 | cut -d: -f2; }

declare -A result
row() { # row NAME KEY ARGUMENTS: one measurement, kept under NAME and KEY
    local name=$1 key=$2 answer what=sends
    shift 2
    [[ $key == fanout* ]] && what=deliveries
    answer=$("$bench" "$@" --seconds "$seconds" --warm-up 0.5 --json 2>>"$dir/log") || {
        [ -n "$answer" ] || { printf '%-14s %-14s failed: %s\n' "$name" "$key" "$(tail -1 "$dir/log")" && return; }
    }
    local rate lost latency cores
    rate=$(field "$what" <<<"${answer#*per_second}")
    lost=$(field lost <<<"$answer")
    latency=${answer#*latency_us}
    [[ $key == fanout* ]] && latency=${latency#*delivery}
    cores=$(grep -o '"cores":[0-9.]*' <<<"$answer" | awk -F: '{ sum += $2 } END { printf "%.2f", sum }')
    result[$name/$key]=$rate
    printf '%-14s %-14s %12.0f /s   p50 %8s us   p99 %8s us   cores %s   lost %s\n' \
        "$name" "$key" "$rate" "$(field p50 <<<"$latency")" "$(field p99 <<<"$latency")" "$cores" "$lost"
}

fanouts() { # fanouts NAME ARGUMENTS
    local name=$1 n
    shift
    for n in $followers; do row "$name" "fanout $n" fanout --followers "$n" --window $window "$@"; done
}
sends() { # sends NAME ARGUMENTS
    local name=$1 n
    shift
    for n in $in_flight; do row "$name" "send $n" send --in-flight "$n" "$@"; done
}
at() { printf -- '--server 127.0.0.1:%s' "$1"; }
watch() { printf -- ' --pid %s' "${pids[@]}"; }

fanouts recado --through machines
sends recado --through machines

if command -v redis-server >/dev/null; then
    one=$(port)
    start redis-server --port "$one" --bind 127.0.0.1 --save '' --dir "$dir"
    listens "$one"
    # shellcheck disable=SC2046
    fanouts redis --broker redis $(at "$one") $(watch)
    for n in 1 2; do
        replica=$(port)
        mkdir "$dir/redis-$n"
        start redis-server --port "$replica" --bind 127.0.0.1 --save '' --dir "$dir/redis-$n" \
            --replicaof 127.0.0.1 "$one"
        listens "$replica"
    done
    # WAIT waits for ever until both replicas are there.
    for _ in $(seq 200); do
        [ "$(redis-cli -p "$one" info replication | grep -c state=online)" = 2 ] && break
        sleep 0.1
    done
    # WAIT blocks its connection, so what is in flight is on as many connections.
    for n in $in_flight; do
        # shellcheck disable=SC2046
        row redis-wait "send $n" send --devices "$n" --in-flight 1 --broker redis-wait --replicas 2 \
            $(at "$one") $(watch)
    done
    stop
fi

if command -v mosquitto >/dev/null; then
    one=$(port)
    start mosquitto -p "$one"
    listens "$one"
    # shellcheck disable=SC2046
    fanouts mosquitto --broker mqtt $(at "$one") $(watch)
    # shellcheck disable=SC2046
    sends mosquitto --broker mqtt $(at "$one") $(watch)
    stop
fi

if command -v nats-server >/dev/null; then
    one=$(port)
    start nats-server -a 127.0.0.1 -p "$one"
    listens "$one"
    # shellcheck disable=SC2046
    fanouts nats --broker nats $(at "$one") $(watch)
    # shellcheck disable=SC2046
    sends nats --broker nats $(at "$one") $(watch)
    stop
    ports=("$(port)" "$(port)" "$(port)") routes=""
    clusters=("$(port)" "$(port)" "$(port)")
    for n in 0 1 2; do routes+="${routes:+,}nats://127.0.0.1:${clusters[$n]}"; done
    for n in 0 1 2; do
        start nats-server -a 127.0.0.1 -p "${ports[$n]}" -js -sd "$dir/js-$n" -n "js-$n" \
            -cluster_name bench -cluster "nats://127.0.0.1:${clusters[$n]}" -routes "$routes"
    done
    for n in 0 1 2; do listens "${ports[$n]}"; done
    # The group needs a leader before it makes a stream.
    for _ in $(seq 200); do
        grep -q 'new metadata leader' "$dir/log" && break
        sleep 0.1
    done
    # shellcheck disable=SC2046
    fanouts jetstream --broker jetstream --replicas 3 $(at "${ports[0]}") $(watch)
    # shellcheck disable=SC2046
    sends jetstream --broker jetstream --replicas 3 $(at "${ports[0]}") $(watch)
    stop
fi

echo
echo "recado's rate over that of:"
for key in $(for n in $followers; do echo "fanout/$n"; done) $(for n in $in_flight; do echo "send/$n"; done); do
    key=${key/\// }
    line=""
    for name in redis redis-wait mosquitto nats jetstream; do
        theirs=${result[$name/$key]:-}
        [ -z "$theirs" ] || line+=$(awk -v a="${result[recado/$key]:-0}" -v b="$theirs" -v n="$name" \
            'BEGIN { if (b > 0) printf "  %s %.3f", n, a / b }')
    done
    printf '%-14s%s\n' "$key" "$line"
done
