#!/usr/bin/env bash
# Builds packages of recado: bash packaging/build.sh [--programs DIR] [--out DIR] [deb] [rpm] [oci] [sbom]
#
#   --programs DIR   takes recado and recadod from there, instead of building them with the profile `dist`
#   --out DIR        where they go; target/packages without it
#   deb, rpm, oci    Debian's package, an RPM, an image that runs recadod; without any of the names, all four
#   sbom             a list of the crates in the programs (CycloneDX)
#
# Needs dpkg-deb, rpmbuild (package rpm), buildah and cargo-cyclonedx, each for its own. SHA256SUMS lists what
# was built; with MINISIGN_KEY set to a secret key's file, minisign signs it.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
needs() { command -v "$1" >/dev/null || die "$1 is missing: $2"; }

target=${CARGO_TARGET_DIR:-target}
out=$target/packages
programs='' names=()
while [ $# -gt 0 ]; do
    case $1 in
        --programs)
            programs=${2:?--programs needs a directory}
            shift
            ;;
        --out)
            out=${2:?--out needs a directory}
            shift
            ;;
        deb | rpm | oci | sbom) names+=("$1") ;;
        *) die "usage: bash packaging/build.sh [--programs DIR] [--out DIR] [deb] [rpm] [oci] [sbom]" ;;
    esac
    shift
done
[ ${#names[@]} -gt 0 ] || names=(deb rpm oci sbom)

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
maintainer=${PACKAGE_MAINTAINER:-"The recado maintainers <maintainers@recado.invalid>"}
# Files carry the time of the last commit, so that the same sources give the same packages.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

if [ -z "$programs" ]; then
    cargo build --profile dist --locked -p recado -p recado-ui
    programs=$target/dist
fi
for program in recado recadod; do
    [ -x "$programs/$program" ] || die "$programs has no $program"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
out=$(realpath "$out")
# What this run has built, until all of it is there.
built=$work/built
mkdir "$built"
[ -z "${MINISIGN_KEY:-}" ] || MINISIGN_KEY=$(realpath "$MINISIGN_KEY")

# The files of deb and rpm, as they lie on a machine.
stage() {
    local tree=$1 shell
    install -d "$tree"/usr/share/{doc/recado,bash-completion/completions,fish/vendor_completions.d,zsh/vendor-completions}
    install -D -m 755 -t "$tree/usr/bin" "$programs/recado" "$programs/recadod"
    strip --strip-unneeded "$tree"/usr/bin/recado "$tree"/usr/bin/recadod
    install -D -m 644 packaging/recadod.service "$tree/usr/lib/systemd/system/recadod.service"
    install -D -m 644 packaging/recado.sysusers "$tree/usr/lib/sysusers.d/recado.conf"
    install -D -m 644 packaging/recado.tmpfiles "$tree/usr/lib/tmpfiles.d/recado.conf"
    "$programs/recado" man "$tree/usr/share/man"
    "$programs/recadod" man "$tree/usr/share/man"
    find "$tree/usr/share/man" -type f -exec gzip -9n {} +
    for program in recado recadod; do
        "$programs/$program" completions bash >"$tree/usr/share/bash-completion/completions/$program"
        "$programs/$program" completions fish >"$tree/usr/share/fish/vendor_completions.d/$program.fish"
        "$programs/$program" completions zsh >"$tree/usr/share/zsh/vendor-completions/_$program"
    done
    install -m 644 -t "$tree/usr/share/doc/recado" README.md docs/OPERATING.md docs/SECURITY.md
    cat - LICENSE-MIT <<TEXT >"$tree/usr/share/doc/recado/copyright"
recado, by its maintainers. Licensed under either of the Apache License, Version 2.0
(on Debian systems: /usr/share/common-licenses/Apache-2.0) or the MIT license, which
follows, at your option.

TEXT
    gzip -9nc CHANGELOG.md >"$tree/usr/share/doc/recado/changelog.gz"
    # The settings of a server, each with its default and limits, and of a client.
    "$programs/recadod" init --dir "$work/sample" --servers 3 >/dev/null
    install -D -m 644 "$work/sample/server-1/recado.toml" "$tree/usr/share/doc/recado/examples/recado.toml"
    sed -i 's/^cluster = .*/cluster = "0000000000000001"/' "$tree/usr/share/doc/recado/examples/recado.toml"
    install -m 644 ui/src/sample.toml "$tree/usr/share/doc/recado/examples/config.toml"
    rm -r "$work/sample"
    find "$tree" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
}

fill() { # template
    sed -e "s|@VERSION@|$version|" -e "s|@MAINTAINER@|$maintainer|" -e "s|@ARCHITECTURE@|${architecture:-}|" \
        -e "s|@SIZE@|${size:-}|" -e "s|@TREE@|${tree:-}|" "$1"
}

build_deb() {
    needs dpkg-deb "install the package dpkg"
    local tree=$work/deb architecture size
    stage "$tree"
    architecture=$(dpkg --print-architecture)
    size=$(du -k -s "$tree" | cut -f1)
    install -d "$tree/DEBIAN"
    fill packaging/deb/control.in >"$tree/DEBIAN/control"
    install -m 755 -t "$tree/DEBIAN" packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm
    install -D -m 644 packaging/deb/lintian-overrides "$tree/usr/share/lintian/overrides/recado"
    printf 'recado (%s-1) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- %s  %s\n' "$version" "$maintainer" \
        "$(LC_ALL=C date -uRd "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$tree/usr/share/doc/recado/changelog.Debian.gz"
    (cd "$tree" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    dpkg-deb --root-owner-group -Zxz --build "$tree" "$built/recado_$version-1_$architecture.deb"
}

build_rpm() {
    needs rpmbuild "install the package rpm"
    local tree=$work/rpm
    stage "$tree"
    fill packaging/rpm.spec.in >"$work/recado.spec"
    rpmbuild --quiet -bb --define "_topdir $work/rpmbuild" --define "_rpmdir $work/rpms" \
        --define 'use_source_date_epoch_as_buildtime 1' --define '_build_id_links none' \
        --define '__os_install_post %{nil}' --define 'clamp_mtime_to_source_date_epoch 1' "$work/recado.spec"
    find "$work/rpms" -name '*.rpm' -exec cp -t "$built" {} +
}

# An image with the programs and the libraries that they load, and nothing else.
build_oci() {
    needs buildah "install the package buildah"
    local image=$work/image container library archive=$built/recado-$version.oci.tar
    install -D -m 755 -t "$image/usr/bin" "$programs/recado" "$programs/recadod"
    strip --strip-unneeded "$image"/usr/bin/*
    for library in $(ldd "$programs/recado" "$programs/recadod" | grep -o '/[^ )]*\.so[^ )]*' | sort -u); do
        install -D -m 755 "$library" "$image$library"
    done
    install -d "$image/etc/recado" && install -d -m 700 "$work/state/recado"
    printf 'recado:x:10097:10097::/var/lib/recado:/usr/bin/recadod\n' >"$image/etc/passwd"
    printf 'recado:x:10097:\n' >"$image/etc/group"
    container=$(buildah --isolation chroot from scratch)
    buildah add --quiet "$container" "$image" / >/dev/null
    buildah add --quiet --chown 10097:10097 "$container" "$work/state" /var/lib >/dev/null
    buildah config --user 10097:10097 --entrypoint '["/usr/bin/recadod"]' --cmd serve --port 10097/udp \
        --port 11097/udp --volume /var/lib/recado --stop-signal SIGTERM \
        --label org.opencontainers.image.version="$version" "$container"
    buildah commit --quiet --timestamp "$SOURCE_DATE_EPOCH" --rm "$container" "oci-archive:$archive:recado:$version" >/dev/null
}

build_sbom() {
    needs cargo-cyclonedx "cargo install --locked cargo-cyclonedx"
    local crate
    for crate in . ui; do
        (cd "$crate" && cargo cyclonedx --format json --override-filename "recado-$version.cdx" >/dev/null)
    done
    mv "recado-$version.cdx.json" "$built/recadod-$version.cdx.json"
    mv "ui/recado-$version.cdx.json" "$built/recado-$version.cdx.json"
    # It writes a list for each crate of the workspace.
    find crates bench tests ui -maxdepth 2 -name "recado-$version.cdx.json" -delete
}

for name in "${names[@]}"; do
    "build_$name"
done
cd "$built"
find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS
if [ -n "${MINISIGN_KEY:-}" ]; then
    needs minisign "install the package minisign"
    minisign -S -s "$MINISIGN_KEY" -m SHA256SUMS
fi
cp -t "$out" -- *
cat SHA256SUMS
