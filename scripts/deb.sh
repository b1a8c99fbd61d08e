#!/bin/sh
# Makes the Debian package of a binary that is built already, in target/debian:
#
#   scripts/deb.sh PROFILE [OPTION…]     cargo's profile, and options of cargo-deb
#
# Manual pages and completions come from the binary itself. cargo-deb reads [package.metadata.deb] in Cargo.toml.
set -eu
cd "$(dirname "$0")/.."

profile=$1
shift
case $profile in
dev) binary=target/debug/ssegate ;;
*) binary=target/$profile/ssegate ;;
esac

rm -rf target/package
"$binary" man target/package/man
for shell in bash zsh fish; do
    "$binary" completions "$shell" >"target/package/ssegate.$shell"
done

target/tools/bin/cargo-deb --no-build --locked --profile "$profile" "$@"
