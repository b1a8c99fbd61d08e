#!/bin/sh
# Installs what a target of the Makefile needs, and nothing when all of it is there.
#
#   scripts/need.sh build   Rust, a C and C++ compiler, make, perl: librdkafka, OpenSSL and aws-lc
#   scripts/need.sh test    those, Redis, Postgres, RabbitMQ, Java and Maven (they bring Apache Kafka), two browsers, HAProxy
#                           and nginx, and for the Debian package cargo-deb, and mmdebstrap where dpkg is
#   scripts/need.sh deb     those of build, cargo-deb
#   scripts/need.sh static  those of build, musl, and Rust's library for it
#   scripts/need.sh bench   those of build, Redis, Java and Maven, and the servers to compare with: nginx with nchan,
#                           Pushpin, and, where Go is, Mercure and Centrifugo, which it builds into target/peers
#   scripts/need.sh fuzz    those of build, cargo-fuzz
#   scripts/need.sh check   those of build, rustfmt, clippy, cargo-deny, systemd-analyze, shellcheck
#
# Packages come from apt, with sudo where one is not root; each command is shown before it runs.
# Where there is no apt, it names the packages to install. Rust is never installed, only asked for.
set -eu
cd "$(dirname "$0")/.."

cargo_deb=3.8.0
cargo_deny=0.20.2
cargo_fuzz=0.13.2
centrifugo=v6.9.1

main() {
    case "${1-}" in
    build | test | fuzz | check | deb | static | bench) ;;
    *) fail "usage: scripts/need.sh build|test|fuzz|check|deb|static|bench" ;;
    esac
    need_rust
    find_missing "$1"
    if [ -n "$debian" ]; then
        install_packages
        find_missing "$1"
        [ -z "$debian" ] || fail "still missing after the installation: $names"
    fi
    if [ "$1" = check ]; then
        need_rust_tools
        need_cargo_tool cargo-deny "$cargo_deny"
    elif [ "$1" = fuzz ]; then
        need_cargo_tool cargo-fuzz "$cargo_fuzz"
    elif [ "$1" = deb ] || [ "$1" = test ] && has dpkg-deb; then
        # Without what reads libraries in C; xz compresses as well.
        need_cargo_tool cargo-deb "$cargo_deb" --no-default-features --features debug-id
    elif [ "$1" = static ]; then
        need_musl
    elif [ "$1" = bench ]; then
        need_kafka
        need_go_peers
    fi
}

# One line for each thing: what it is, a probe, then its package in Debian, Fedora and Homebrew.
# There is none for Homebrew where macOS brings it (xcode-select) or cannot have it (systemd).
find_missing() {
    names='' debian='' fedora='' brew=''
    need "a C compiler" "has cc" build-essential gcc ""
    need "a C++ compiler" "has c++" build-essential gcc-c++ ""
    need "make" "has make" build-essential make ""
    need "perl with its modules" has_perl perl perl perl
    case $1 in
    test)
        need "redis-server" "has redis-server" redis-server redis redis
        need "Postgres" has_postgres postgresql postgresql-server postgresql
        need "RabbitMQ" "exists /usr/lib/rabbitmq/bin/rabbitmq-server" rabbitmq-server rabbitmq-server rabbitmq
        need "Java 17 or newer" has_java default-jre-headless java-latest-openjdk-headless openjdk
        need "Maven" "has mvn" maven maven maven
        need "Chromium" "has chromium" chromium chromium chromium
        need "Firefox" "has firefox-esr" firefox-esr firefox firefox
        need "certutil" "has certutil" libnss3-tools nss-tools nss
        need "curl" "has curl" curl curl curl
        need "Node.js" "has node" nodejs nodejs node
        need "npm" "has npm" npm npm node
        need "Python" "has python3" python3 python3 python3
        need "Python's venv" has_venv python3-venv python3 python3
        need "HAProxy" "has_server haproxy" haproxy haproxy haproxy
        need "nginx" "has_server nginx" nginx nginx nginx
        need "nginx's stream module" has_nginx_stream libnginx-mod-stream nginx-mod-stream ""
        need "nats-server" "has_server nats-server" nats-server nats-server nats-server
        need "Mosquitto" "has_server mosquitto" mosquitto mosquitto mosquitto
        ! has dpkg-deb || need "mmdebstrap" "has mmdebstrap" mmdebstrap "" ""
        ;;
    deb)
        need "dpkg-shlibdeps" "has dpkg-shlibdeps" dpkg-dev dpkg-dev ""
        need "xz" "has xz" xz-utils xz xz
        ;;
    static)
        need "musl-gcc" "has musl-gcc" musl-tools musl-gcc ""
        ;;
    bench)
        need "redis-server" "has redis-server" redis-server redis redis
        need "Java 17 or newer" has_java default-jre-headless java-latest-openjdk-headless openjdk
        need "Maven" "has mvn" maven maven maven
        need "nginx" "has nginx" nginx nginx nginx
        need "nchan" "exists /usr/lib/nginx/modules/ngx_nchan_module.so" libnginx-mod-nchan "" ""
        need "Pushpin" "has pushpin-handler" pushpin "" ""
        need "openssl" "has openssl" openssl openssl openssl
        need "ss" "has ss" iproute2 iproute ""
        need "taskset and setpriv" "has setpriv" util-linux util-linux ""
        ;;
    check)
        need "systemd-analyze" "has systemd-analyze" systemd systemd ""
        need "shellcheck" "has shellcheck" shellcheck ShellCheck shellcheck
        ;;
    esac
}

need() {
    $2 && return
    names="$names${names:+, }$1"
    debian=$(add "$debian" "$3") fedora=$(add "$fedora" "$4") brew=$(add "$brew" "$5")
}

# The list $1 with $2, if that is anything, at its end once.
add() {
    case " $1 " in
    *" $2 "*) echo "$1" ;;
    *) echo "$1${1:+${2:+ }}$2" ;;
    esac
}

has() {
    command -v "$1" >/dev/null
}

# Debian has these where not everybody looks.
has_server() {
    has "$1" || [ -x "/usr/sbin/$1" ]
}

# Debian has the programs of each version in a folder of its own.
has_postgres() {
    has initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

# Built in with Homebrew's.
has_nginx_stream() {
    ! has apt-get || [ -e /usr/lib/nginx/modules/ngx_stream_module.so ]
}

exists() {
    [ -e "$1" ]
}

# Debian's perl-base has the command, but not the modules that OpenSSL's Configure loads.
has_perl() {
    perl -MFindBin -MFile::Compare -MIPC::Cmd -e 1 2>/dev/null
}

# Debian has what fills an environment with pip in a package of its own.
has_venv() {
    python3 -c "import ensurepip, venv" 2>/dev/null
}

has_java() {
    major=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
    [ "${major:-0}" -ge 17 ]
}

install_packages() {
    echo "missing: $names"
    if ! has apt-get; then
        fail "There is no apt here: install these yourself, then run this again.
  Fedora: sudo dnf install $fedora
  macOS:  xcode-select --install; brew install $brew"
    fi
    sudo=''
    if [ "$(id -u)" != 0 ]; then
        has sudo || fail "This needs root, and there is no sudo. As root, run:
  apt-get update && apt-get install -y $debian"
        sudo=sudo
    fi
    hold_services
    run apt-get -q update
    # shellcheck disable=SC2086 # a list of packages
    run apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $debian
}

# Tests start the servers that they need themselves: while packages are installed, Debian starts none.
hold_services() {
    policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || return 0
    run sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
    trap 'run rm -f "$policy"' EXIT
}

# Runs the command as root, and shows it.
run() {
    echo "+ ${sudo:+$sudo }$*"
    $sudo env DEBIAN_FRONTEND=noninteractive "$@"
}

# Rust is the developer's own: which one and how it is kept up is not ours to decide.
need_rust() {
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    has cargo || fail "cargo is not here. ssegate needs Rust $wanted or newer. Install it from https://rustup.rs:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
and run this again."
    found=$(cargo --version | cut -d ' ' -f 2)
    oldest=$(printf '%s\n%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)
    [ "$oldest" = "$wanted" ] && return
    if has rustup; then
        fail "Rust $found is too old: ssegate needs $wanted or newer. Run: rustup update stable"
    fi
    fail "Rust $found ($(command -v cargo)) is too old: ssegate needs $wanted or newer. Install it from https://rustup.rs:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
and put ~/.cargo/bin before it in PATH."
}

need_rust_tools() {
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
    fail "cargo fmt or cargo clippy is not here. Run: rustup component add rustfmt clippy"
}

need_musl() {
    target=$(uname -m)-unknown-linux-musl
    [ -d "$(rustc --print target-libdir --target "$target")" ] && return
    fail "Rust's library for $target is not here. Run: rustup target add $target"
}

# Built without optimization: it runs for three seconds, and building it takes a minute instead of six.
need_cargo_tool() {
    tool=$1 version=$2
    shift 2
    case $("target/tools/bin/$tool" --version 2>/dev/null) in
    "$tool $version" | "$version") return ;;
    esac
    echo "+ cargo install $tool --version $version --root target/tools $*"
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install "$tool" --quiet --locked --version "$version" --root target/tools "$@"
}

# The jars of Apache Kafka, where and as the tests look for them.
need_kafka() {
    cmp -s tests/kafka/pom.xml target/kafka/pom.xml && [ -s target/kafka/cp.txt ] && return
    mkdir -p target/kafka
    echo "+ mvn dependency:build-classpath"
    mvn -B -q -f tests/kafka/pom.xml dependency:build-classpath -DincludeScope=runtime \
        -Dmdep.outputFile="$PWD/target/kafka/cp.txt"
    cp tests/kafka/pom.xml target/kafka/pom.xml
}

# Go is the developer's own, as Rust is: without it the benchmark leaves these two out, and says so.
need_go_peers() {
    if ! has go; then
        echo "Go is not here: Mercure and Centrifugo are left out. To have them, install Go 1.26 or newer."
        return
    fi
    peers=$PWD/target/peers
    # Nothing is built twice: Go keeps what it has built.
    (cd tests/load/peers/mercure && go build -o "$peers/mercure" .) || echo "Mercure is left out."
    if [ ! -x "$peers/centrifugo" ]; then
        echo "+ go install github.com/centrifugal/centrifugo/v6@$centrifugo"
        GOBIN=$peers go install "github.com/centrifugal/centrifugo/v6@$centrifugo" || echo "Centrifugo is left out."
    fi
}

fail() {
    echo "$*" >&2
    exit 1
}

main "$@"
