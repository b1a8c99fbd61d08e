#!/usr/bin/env bash
# Checks the files of this folder without a running systemd: the unit has no unknown or misplaced
# key, its hardening scores 2.0 or better, and sysusers.conf makes the user that the unit names.
# Called by `make check`. All of it happens in a temporary root; the machine is left as it was.
set -euo pipefail
cd "$(dirname "$0")"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# systemd-analyze wants to see the program that ExecStart names and the units that ours refers to.
mkdir -p "$root"/{etc,usr/bin,usr/lib/systemd/system,usr/lib/sysusers.d}
cp -r /lib/systemd/system/. "$root/usr/lib/systemd/system"
install -m 755 /dev/null "$root/usr/bin/ssegate"
install -m 644 ssegate.service ssegate.socket "$root/usr/lib/systemd/system"
install -m 644 sysusers.conf "$root/usr/lib/sysusers.d/ssegate.conf"

# recursive-errors=no: ours alone is looked at, and its warnings count as errors too.
systemd-analyze verify --man=no --recursive-errors=no --root="$root" ssegate.service ssegate.socket
echo "systemd: ssegate.service and ssegate.socket verified"

# The drop-in is for systemd 253 and later; before, its type is unknown, and all else of it is looked at.
version=$(systemd-analyze --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
mkdir -p "$root/usr/lib/systemd/system/ssegate.service.d"
if [ "$version" -ge 253 ]; then
    install -m 644 notify-reload.conf "$root/usr/lib/systemd/system/ssegate.service.d"
else
    sed 's/^Type=notify-reload$/Type=notify/' notify-reload.conf \
        > "$root/usr/lib/systemd/system/ssegate.service.d/notify-reload.conf"
fi
systemd-analyze verify --man=no --recursive-errors=no --root="$root" ssegate.service
rm -r "$root/usr/lib/systemd/system/ssegate.service.d"
echo "systemd: notify-reload.conf verified by systemd $version"

# A threshold of 20 is a score of 2.0. The whole table is shown only where that is not reached.
if ! security=$(systemd-analyze security --no-pager --offline=true --threshold=20 --root="$root" ssegate.service); then
    printf '%s\n' "$security" >&2
    exit 1
fi
printf 'systemd:%s\n' "$(grep 'Overall exposure' <<<"$security" | tr -d '→')"

systemd-sysusers --root="$root"
for file in passwd group; do
    grep -q '^ssegate:' "$root/etc/$file" || {
        echo "systemd: sysusers.conf put no ssegate into /etc/$file" >&2
        exit 1
    }
done
