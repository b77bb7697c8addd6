# Shared by the scripts beside it: what they need of this machine, installed where it is missing.
# Sourced with $root set to the checkout. Asks nothing, says what it installs.

say() { printf '%s\n' "==> $*"; }

fail() {
	printf '%s\n' "$1" >&2
	[ -z "${2:-}" ] || printf '  hint: %s\n' "$2" >&2
	exit 1
}

need_root() {
	[ "$(id -u)" = 0 ] || fail "$0 needs root: it mounts file systems and makes network namespaces" "sudo $0"
}

# apt_install PACKAGE...: install those that are not there.
apt_install() {
	missing=
	for package; do
		case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
		installed) ;;
		*) missing="$missing $package" ;;
		esac
	done
	[ -n "$missing" ] || return 0
	command -v apt-get >/dev/null || fail "this machine has no apt" "install by hand:$missing"
	say "installing with apt:$missing"
	apt_log=$(mktemp)
	if ! {
		DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 update &&
			DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 \
				install --no-install-recommends $missing
	} >"$apt_log" 2>&1 </dev/null; then
		tail -n 20 "$apt_log" >&2
		rm -f "$apt_log"
		fail "apt could not install:$missing" "the lines above say why"
	fi
	rm -f "$apt_log"
}

# Whether $1 is a Python that is new enough and can make a virtual environment.
python_is_good() {
	"$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Set $python.
find_python() {
	for python in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
		python_is_good "$python" && return
	done
	apt_install python3 python3-venv
	python=/usr/bin/python3
	python_is_good "$python" || fail "there is no Python 3.11 or later here" "Debian 12, 13 and Ubuntu 24.04 have one"
}

# make_venv EXTRA: the checkout with that extra, in .venv or $SPRIGGAN_VENV. An environment that has
# it already is left alone.
make_venv() {
	venv=${SPRIGGAN_VENV:-$root/.venv}
	stamp=$venv/.spriggan-$1-$(cat "$root/pyproject.toml" "$root/src/spriggan/__init__.py" | cksum | tr ' ' -)
	if [ ! -e "$stamp" ]; then
		find_python
		say "installing Spriggan and its libraries into $venv with $("$python" --version)"
		# A caller that tests our exit code switches `set -e` off in here, too.
		"$python" -m venv "$venv" &&
			"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root[$1]" &&
			touch "$stamp" || fail "Spriggan could not be installed into $venv" "the lines above say why"
	fi
	# Each start of a program would compile all of it again where Python may not write down what it compiled.
	"$venv/bin/python" -m compileall -q "$root/src" || :
	PATH=$venv/bin:$PATH
	export PATH
}

# The default image, kept between runs: building it takes minutes.
SPRIGGAN_IMAGE_CACHE=${SPRIGGAN_IMAGE_CACHE:-/var/cache/spriggan}
export SPRIGGAN_IMAGE_CACHE

# use_cached_images DATA: show the cached images in a data directory, without a copy where possible.
use_cached_images() {
	mkdir -p "$1/images"
	for part in layers refs; do
		cp -al "$SPRIGGAN_IMAGE_CACHE/images/$part" "$1/images/" 2>/dev/null && continue
		rm -rf "$1/images/$part"
		cp -a "$SPRIGGAN_IMAGE_CACHE/images/$part" "$1/images/"
	done
}

# The official JavaScript client and a Node that runs it, kept between runs.
SPRIGGAN_NODE=${SPRIGGAN_NODE:-$SPRIGGAN_IMAGE_CACHE/node}
export SPRIGGAN_NODE

# node_packages: install them from npm into $SPRIGGAN_NODE where they are missing.
node_packages() {
	node_program=$SPRIGGAN_NODE/node_modules/.bin/node
	case $("$node_program" --version 2>/dev/null) in
	v24.*) [ ! -d "$SPRIGGAN_NODE/node_modules/@fly/sprites" ] || return 0 ;;
	esac
	command -v npm >/dev/null || apt_install npm
	say "installing Node 24 and the official JavaScript client into $SPRIGGAN_NODE"
	mkdir -p "$SPRIGGAN_NODE" &&
		npm install --prefix "$SPRIGGAN_NODE" --loglevel error --no-audit --no-fund node@24 @fly/sprites >&2 &&
		"$node_program" --version >/dev/null ||
		fail "npm could not install node@24 and @fly/sprites" "the lines above say why"
}
