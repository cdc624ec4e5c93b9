#!/usr/bin/env bash
# Builds the deb of these programs and installs it into a copy of this machine: bash packaging/test.sh DIR
#
# DIR holds recado and recadod. The copy is an overlay over /, which only root can mount; where that is not
# possible, a message says what was left out. What is in place is checked by hand: the files, that nothing
# starts before `recadod init`, that the server runs as its own user, that a removal leaves its data.
set -euo pipefail
cd "$(dirname "$0")/.."

programs=${1:?the directory of recado and recadod}
packages=$(mktemp -d)
work=$(mktemp -d)
root=$work/root
# Nothing is deleted below a mount that is still there: /dev of this machine is among them.
clean() {
    for mounted in "$root" "$work"; do
        umount -R -l "$mounted" 2>/dev/null || true
    done
    rm -rf --one-file-system "$packages" "$work"
}
trap clean EXIT
fail() { printf 'packaging/test.sh: %s\n' "$*" >&2; exit 1; }

bash packaging/build.sh --programs "$programs" --out "$packages" deb
deb=$(find "$packages" -maxdepth 1 -name '*.deb' | head -1)
(cd "$packages" && sha256sum --check --quiet SHA256SUMS)

if command -v lintian >/dev/null; then
    lintian --fail-on error,warning "$deb" || fail "lintian"
else
    printf 'left out: lintian is not installed\n'
fi
if command -v systemd-analyze >/dev/null; then
    # The unit names a program that is installed only in the copy.
    sed "s|^ExecStart=/usr/bin/recadod|ExecStart=$(realpath "$programs")/recadod|; /^Documentation/d" \
        packaging/recadod.service >"$packages/recadod.service"
    systemd-analyze verify --man=no "$packages/recadod.service"
    exposure=$(systemd-analyze security --offline=yes "$packages/recadod.service" | tail -1)
    printf '%s\n' "$exposure"
    case $exposure in *OK*) ;; *) fail "the unit is more exposed than OK" ;; esac
    rm "$packages/recadod.service"
else
    printf 'left out: systemd-analyze is not installed\n'
fi

# An upper layer must not lie on an overlay itself, as / may do.
if ! { mount -t tmpfs tmpfs "$work" && mkdir -p "$work/upper" "$work/work" "$root" &&
    mount -t overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" overlay "$root"; } 2>/dev/null; then
    printf 'left out: installing, because this user cannot mount an overlay\n'
    exit 0
fi
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
cp "$deb" "$root/recado.deb"
within() { chroot "$root" /bin/bash -ec "$1"; }

running=$(pgrep -cx recadod || true)
within 'dpkg -i --force-depends /recado.deb' >/dev/null
[ "$(pgrep -cx recadod || true)" = "$running" ] || fail "installing has started a server"
within 'recado --version && recadod --version'
within 'test -e /usr/share/man/man8/recadod-serve.8.gz && test -e /usr/share/man/man1/recado-send.1.gz'
within 'test "$(stat -c "%U %a" /var/lib/recado)" = "recado 700" && test "$(stat -c "%U %a" /etc/recado)" = "recado 750"'
# The commands that `recadod init --data` prints, for one machine that is its own cluster.
within 'recadod init --dir /cluster --host 127.0.0.9 --port 29097 --data /var/lib/recado/data >/dev/null
    cp /cluster/server-1/recado.toml /cluster/server-1/cluster.secret /etc/recado/
    test ! -e /var/lib/recado/data && mv /cluster/server-1/data /var/lib/recado/data
    chown -R recado: /etc/recado /var/lib/recado/data
    setpriv --reuid recado --regid recado --clear-groups recadod check-config'
within 'setpriv --reuid recado --regid recado --clear-groups recadod serve 2>/tmp/log & server=$!
    trap "kill -9 $server 2>/dev/null || true" EXIT
    export HOME=/tmp/home RECADO_SERVERS=127.0.0.9:29097
    key=$(recadod fingerprint | sed -n "s/^key *//p")
    for wait in $(seq 100); do
        RECADO_CLUSTER_KEY=$key recado status >/dev/null 2>&1 && break
        sleep 0.1
    done
    RECADO_CLUSTER_KEY=$key recado --as alice send "from the package"
    # A copy in memory with little room, or a datagram that is lost, is a warning and no fault of the package.
    recadod doctor --json >/tmp/server.json || true
    RECADO_CLUSTER_KEY=$key recado doctor --json >/tmp/client.json || true
    kill $server && wait $server' || { cat "$root/tmp/log" >&2; fail "the installed server"; }
# has_no_fault REPORT CHECK...: no finding is a fault, and each of these checks has been made.
has_no_fault() {
    local report=$root/tmp/$1 check
    grep -q '"faults":0[,}]' "$report" || { cat "$report" >&2; fail "a doctor has found a fault"; }
    for check in "${@:2}"; do
        grep -q "\"check\":\"$check\"" "$report" || { cat "$report" >&2; fail "no check: $check"; }
    done
}
has_no_fault server.json config access data disk fsync port server udp
has_no_fault client.json name udp cluster disk
within 'dpkg -i --force-depends /recado.deb' >/dev/null
within 'dpkg --purge recado' >/dev/null 2>&1
within 'test ! -e /usr/bin/recadod && test -d /var/lib/recado/data && test -e /etc/recado/cluster.secret'
printf 'packaging: the package installs, serves, upgrades and leaves its data\n'
