#!/usr/bin/env bash
# Installs, upgrades, removes and purges the Debian package in a new Debian of its own, made by mmdebstrap, as root:
#
#   tests/package/run.sh FOLDER
#
# FOLDER is a temporary one, which the caller removes. The package holds the binary of the dev profile, target/debug/ssegate.
# It has no systemd; later a `systemctl` that writes down what it is told stands for one.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$1
root=$folder/root

main() {
    # Most of that is waiting for packages to come.
    make_root &
    making=$!
    # Nobody else ends it if something fails before.
    trap 'kill "$making" 2>/dev/null || true; wait' EXIT
    make_packages
    wait "$making"
    cp "$folder/ssegate.deb" "$folder/later.deb" "$root"
    installs
    serves
    upgrades_with_systemd
    is_removed_and_comes_back
    is_purged
    echo "package: installed, served, upgraded, removed, installed again and purged"
}

# This version, and a later one whose configuration is another one.
make_packages() {
    scripts/deb.sh dev --quiet --fast --strip --output "$folder/ssegate.deb"
    dpkg-deb --raw-extract "$folder/ssegate.deb" "$folder/later"
    sed -i 's/^Version: .*/Version: 99.0/' "$folder/later/DEBIAN/control"
    echo "# Of the later version." >>"$folder/later/etc/ssegate/config.yaml"
    dpkg-deb --build --root-owner-group -Znone "$folder/later" "$folder/later.deb" >/dev/null
}

# Nothing but what each Debian has, and what the package depends on.
make_root() {
    # The same Debian as this machine's, whose libraries the binary wants.
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    mmdebstrap --quiet --variant=essential --include=systemd-standalone-sysusers "$release" "$root"
    # Nobody needs it after a power failure.
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
}

# Runs a command in it, with processes and a network of its own.
inside() {
    # shellcheck disable=SC2016 # expanded by the shell that is called
    unshare --mount --pid --fork --kill-child --net sh -c 'mount -t proc proc "$1/proc" && exec chroot "$@"' sh "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

installs() {
    inside dpkg --install /ssegate.deb
    [ "$(inside stat -c '%a %U:%G' /etc/ssegate)" = "750 root:ssegate" ] || fail "who may read /etc/ssegate"
    [ "$(inside stat -c '%a %U:%G' /etc/ssegate/config.yaml)" = "640 root:ssegate" ] || fail "who may read the configuration"
    # shellcheck disable=SC2016 # dpkg's own variable
    inside dpkg-query --show --showformat '${Conffiles}' ssegate | grep -q '^ /etc/ssegate/config.yaml ' ||
        fail "the configuration is no conffile"
    inside dpkg --verify ssegate || fail "files are not as they were packed"
    [ -z "$(inside find / -xdev \( -nouser -o -nogroup \) -print)" ] || fail "files of nobody"
    # For the next boot; here systemd does not run.
    is_enabled ssegate.service || fail "the service is not enabled"
    ! is_enabled ssegate.socket || fail "the socket is enabled"
    for file in usr/lib/systemd/system/ssegate.socket usr/lib/sysusers.d/ssegate.conf \
        usr/share/man/man1/ssegate.1.gz usr/share/man/man1/ssegate-upgrade.1.gz \
        usr/share/bash-completion/completions/ssegate usr/share/zsh/vendor-completions/_ssegate \
        usr/share/fish/vendor_completions.d/ssegate.fish usr/share/doc/ssegate/copyright \
        usr/share/doc/ssegate/changelog.gz usr/share/doc/ssegate/README.md; do
        [ -s "$root/$file" ] || fail "no $file"
    done
}

# As the service does it, but on ports that are free.
serves() {
    as_service ssegate check --config /etc/ssegate/config.yaml
    inside install -d -o ssegate /run/ssegate
    inside sh -c "sed 's/127.0.0.1:[0-9]*/127.0.0.1:0/; s|^admin:.*|admin: { listen: \"unix:/run/ssegate/admin.sock\" }|' \
        /etc/ssegate/config.yaml >/run/ssegate/config.yaml"
    # shellcheck disable=SC2016 # expanded in there
    as_service sh -c '
        admin=unix:/run/ssegate/admin.sock
        ssegate serve --config /run/ssegate/config.yaml &
        for _ in $(seq 300); do ssegate status --admin $admin 2>/dev/null && break; sleep 0.1; done
        ssegate upgrade --admin $admin
        wait
        ssegate status --admin $admin'
    rm -r "$root/run/ssegate"
}

# A configuration that nobody has changed is replaced; the service runs on, and has a successor.
upgrades_with_systemd() {
    mkdir -p "$root/run/systemd/system"
    cat >"$root/usr/bin/systemctl" <<'END'
#!/bin/sh
echo "$*" >>/systemctl.log
case "$*" in *is-enabled*) echo enabled ;; esac
END
    chmod 755 "$root/usr/bin/systemctl"
    inside dpkg --install /later.deb
    grep -q 'Of the later version' "$root/etc/ssegate/config.yaml" || fail "the configuration was not replaced"
    [ "$(inside stat -c '%a %U:%G' /etc/ssegate/config.yaml)" = "640 root:ssegate" ] || fail "who may read it now"
    called '--system daemon-reload' 'kill --kill-whom=main --signal=USR2 ssegate.service'
    ! grep -qE ' (stop|restart|start) ' "$root/systemctl.log" || fail "the service was interrupted: $(cat "$root/systemctl.log")"

    # And one that somebody has changed stays.
    echo '# Of an administrator.' >>"$root/etc/ssegate/config.yaml"
    sed -i 's/^Version: .*/Version: 99.1/' "$folder/later/DEBIAN/control"
    echo "# Later still." >>"$folder/later/etc/ssegate/config.yaml"
    dpkg-deb --build --root-owner-group -Znone "$folder/later" "$root/later.deb" >/dev/null
    inside dpkg --force-confdef --force-confold --install /later.deb
    grep -q 'Of an administrator' "$root/etc/ssegate/config.yaml" || fail "an administrator's configuration is gone"
}

is_removed_and_comes_back() {
    rm "$root/systemctl.log"
    inside dpkg --remove ssegate
    called 'stop ssegate.socket ssegate.service' '--system daemon-reload'
    [ ! -e "$root/usr/bin/ssegate" ] || fail "the binary is still there"
    grep -q 'Of an administrator' "$root/etc/ssegate/config.yaml" || fail "the configuration went with the package"
    rm "$root/systemctl.log"
    # Not running by now, and so it is started.
    sed -i '2a case "$*" in *is-active*) exit 3 ;; esac' "$root/usr/bin/systemctl"
    inside dpkg --force-confdef --force-confold --install /later.deb
    is_enabled ssegate.service || fail "the service is not enabled again"
    [ "$(readlink "$root/etc/systemd/system/ssegate.service")" != /dev/null ] || fail "the service is masked"
    called '--quiet --system start ssegate.service'
    grep -q 'Of an administrator' "$root/etc/ssegate/config.yaml" || fail "the configuration was replaced"
}

is_purged() {
    inside install -D -o ssegate -m 600 /dev/null /var/lib/ssegate/acme/account.json
    inside dpkg --purge ssegate
    rm "$root/ssegate.deb"
    left=$(find "$root" -xdev -name '*ssegate*')
    [ -z "$left" ] || fail "left behind: $left"
    inside dpkg --audit
    # What is an administrator's own is not the package's to remove.
    inside dpkg --install /later.deb
    inside install -D -m 600 /dev/null /etc/ssegate/tls/privkey.pem
    inside dpkg --purge ssegate
    [ -e "$root/etc/ssegate/tls/privkey.pem" ] || fail "a key of the administrator's is gone"
    [ ! -e "$root/etc/ssegate/config.yaml" ] || fail "the configuration is left"
}

as_service() {
    inside setpriv --reuid ssegate --regid ssegate --clear-groups --no-new-privs "$@"
}

is_enabled() {
    [ -L "$root/etc/systemd/system/multi-user.target.wants/$1" ] || [ -L "$root/etc/systemd/system/sockets.target.wants/$1" ]
}

called() {
    for line; do
        grep -qxF -- "$line" "$root/systemctl.log" || fail "systemctl was not told $line, but: $(cat "$root/systemctl.log")"
    done
}

fail() {
    echo "package: $*" >&2
    exit 1
}

main
