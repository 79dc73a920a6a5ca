# shellcheck shell=bash
# Shared by the scripts of this folder: where things are, and how to say what goes on.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
TARGET="${CARGO_TARGET_DIR:-$ROOT/target}"
# Clients, jars and tools of the tests live here, never in the system.
# shellcheck disable=SC2034
TOOLS="$TARGET/tools"

say() {
    if [ -t 1 ]; then
        printf '\n\033[1m== %s\033[0m\n' "$*"
    else
        printf '\n== %s\n' "$*"
    fi
}

die() {
    printf '%s\n' "$@" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs its arguments as root, directly or through a sudo that asks for nothing; fails otherwise.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# Installs Debian packages, or says what a person has to do.
apt_install() {
    have apt-get || die "Please install these yourself, then run this again: $*"
    say "installing with apt-get: $*"
    {
        as_root apt-get update -qq </dev/null &&
            as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
    } || die "Could not install. As root, run: apt-get install $*"
}
