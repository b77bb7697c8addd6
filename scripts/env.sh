# Sourced by the other scripts: a Python, a virtual environment with the checkout in it, the host's
# packages, and the default image in a cache. Needs a shell, apt and root.

set -eu
ROOT=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
VENV=${SPRIGGAN_VENV:-$ROOT/.venv}
IMAGE_CACHE=${SPRIGGAN_IMAGE_CACHE:-/var/cache/spriggan}
export DEBIAN_FRONTEND=noninteractive

say() { printf '== %s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

[ "$(id -u)" -eq 0 ] || die "$0 must run as root: it mounts file systems and makes namespaces. Try: sudo $0"

apt_install() {
    command -v apt-get >/dev/null 2>&1 || die "There is no apt-get here. Install by hand: $*"
    say "installing with apt: $*"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# A Python that is new enough and can make virtual environments.
find_python() {
    for candidate in python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

# set_up EXTRA…: the checkout with these extras, and what the host must have.
set_up() {
    python=$(find_python)
    if [ -z "$python" ]; then
        apt_install python3 python3-venv
        python=$(find_python)
        [ -n "$python" ] || die "Python 3.11 or newer is needed; this distribution has none."
    fi
    extras=$1
    stamp="$VENV/.spriggan-$(cksum < "$ROOT/pyproject.toml" | tr ' ' -)-$extras"
    if [ ! -e "$stamp" ]; then
        say "installing Spriggan and its libraries into $VENV"
        "$python" -m venv "$VENV"
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$ROOT[$extras]"
        touch "$stamp"
    fi
    PATH="$VENV/bin:$PATH"
    export PATH
    say "checking the host's packages"
    spriggan setup
}

# The default image, built once into the cache.
build_image() {
    say "building the default image (kept in $IMAGE_CACHE; only the first time takes minutes)"
    spriggan --data "$IMAGE_CACHE" image build
}
