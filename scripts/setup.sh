#!/usr/bin/env bash
# Sets the project up in this folder: Python packages in .venv, RabbitMQ, and for the tests a browser.
#
#   scripts/setup.sh lab    what `make lab` needs
#   scripts/setup.sh test   that and a browser (the default)
#
# Every step prints one line. A failed step says in that line what went wrong and where the log is.
# What is already there is left alone, so a second run takes about a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

what=${1:-test}
case $what in
    lab) steps=4 ;;
    test) steps=5 ;;
    *) echo "usage: scripts/setup.sh [lab|test]" >&2; exit 2 ;;
esac

venv=.venv
state=.setup
log=$state/setup.log
python=${PYTHON:-python3}
export UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
mkdir -p "$state"

# Two set-ups at once (make lab in one terminal, make test in another) would install over each other.
if command -v flock >/dev/null 2>&1; then
    exec 9>"$state/lock"
    flock -n 9 || { echo "another set-up is running here; waiting for it"; flock 9; }
fi
: >"$log"

# ---- one line a step ------------------------------------------------------------------------------------------------

number=0
started=0

begin() {
    number=$((number + 1))
    started=$SECONDS
    printf '[%d/%d] %s ... ' "$number" "$steps" "$1"
    printf '== %s\n' "$1" >>"$log"
}

ok() { printf 'ok%s (%d s)\n' "${1:+, $1}" "$((SECONDS - started))"; }

fail() { # what went wrong, and what to do about it
    printf 'FAILED: %s (log: %s)\n' "$1" "$log"
    exit 1
}

# What the log says of the cause, without addresses: an index address may carry a password.
reason() {
    local cause line
    cause=$(grep -aoiE 'connection refused|temporary failure (in name resolution|resolving)|name or service not known|dns error|network is unreachable|no route to host|timed out|certificate verify failed|no space left on device|permission denied' \
        "$log" | tail -n 1) || true
    line=$(grep -aE '^(E:|error|ERROR|fatal)|: error:' "$log" | tail -n 1) || true
    [ -n "$line" ] || line=$(grep -av '^[[:space:]]*$' "$log" | tail -n 1)
    printf '%s' "${cause:+$cause; }$line" | sed -E 's#[a-z+]+://[^ ]+#<address>#g' | cut -c1-200
}

logged() { "$@" >>"$log" 2>&1 </dev/null 9>&-; }

# ---- Debian packages ------------------------------------------------------------------------------------------------

apt_updated=no

# Sets `as_root` to the command prefix that gives root, or returns 1. Asks for a password only at a terminal.
as_root=()
become_root() {
    if [ "$(id -u)" = 0 ]; then as_root=(env); return 0; fi
    command -v sudo >/dev/null 2>&1 || return 1
    if sudo -n true 2>/dev/null; then as_root=(sudo env); return 0; fi
    if [ -t 0 ] && [ -t 2 ]; then
        printf 'needs root; '
        if sudo -v; then as_root=(sudo env); return 0; fi
    fi
    return 1
}

have_apt() { command -v apt-get >/dev/null 2>&1; }

apt_install() {
    local apt=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
    if [ "$apt_updated" = no ]; then
        logged "${apt[@]}" update || true # an old list may still do; if not, the install says so
        apt_updated=yes
    fi
    logged "${apt[@]}" install --no-install-recommends "$@"
}

# Debian starts a service when its package is installed. The course runs private nodes and wants no system broker,
# so starting is forbidden during the installation, by the hook that Debian has for it, which is then put back.
policy=/usr/sbin/policy-rc.d
policy_saved=

forbid_services() {
    policy_saved=$(mktemp -d)
    if [ -e "$policy" ]; then logged "${as_root[@]}" cp -a "$policy" "$policy_saved/policy"; fi
    printf '#!/bin/sh\nexit 101\n' >"$policy_saved/forbid"
    trap 'allow_services' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    logged "${as_root[@]}" install -m 755 "$policy_saved/forbid" "$policy"
}

allow_services() {
    [ -n "$policy_saved" ] || return 0
    if [ -e "$policy_saved/policy" ]; then
        logged "${as_root[@]}" cp -a --remove-destination "$policy_saved/policy" "$policy" || true
    else
        logged "${as_root[@]}" rm -f "$policy" || true
    fi
    logged "${as_root[@]}" rm -rf "$policy_saved" || true
    policy_saved=
    trap - EXIT INT TERM
}

# ---- 1 Python -------------------------------------------------------------------------------------------------------

begin "Python 3.11 or newer"
command -v "$python" >/dev/null 2>&1 || fail "no '$python' found; install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3"
version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>>"$log") || fail "'$python' does not run: $(reason)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || fail "'$python' is Python $version; 3.11 or newer is needed, name one with make PYTHON=/path/to/python3"
if ! "$python" -c 'import ensurepip, venv' 2>>"$log"; then
    { have_apt && become_root; } || fail "Python $version has no venv module; install it (Debian: apt install python3-venv)"
    apt_install python3-venv || fail "apt could not install python3-venv: $(reason)"
    "$python" -c 'import ensurepip, venv' 2>>"$log" || fail "Python $version still has no venv module after apt installed python3-venv"
fi
ok "$version"

# ---- 2 RabbitMQ -----------------------------------------------------------------------------------------------------

find_rabbitmq() {
    local place
    if [ -n "${CHATLIB_RABBITMQ_SERVER:-}" ]; then # of the same meaning as in chatlib.brokers
        [ -x "$CHATLIB_RABBITMQ_SERVER" ] && printf '%s' "$CHATLIB_RABBITMQ_SERVER"
        return
    fi
    for place in "$(command -v rabbitmq-server 2>/dev/null)" /usr/lib/rabbitmq/bin/rabbitmq-server /usr/sbin/rabbitmq-server \
        "${CONDA_PREFIX:-/nonexistent}/bin/rabbitmq-server" /opt/homebrew/sbin/rabbitmq-server /usr/local/sbin/rabbitmq-server; do
        if [ -n "$place" ] && [ -e "$place" ]; then printf '%s' "$place"; return 0; fi
    done
    return 1
}

no_rabbitmq() {
    printf 'FAILED: no RabbitMQ here, and no root to install it with\n\n'
    cat <<'TEXT'
Any one of these three gives you one:

  apt      sudo apt install rabbitmq-server          then make lab (the course runs nodes of its own as your user)
  conda    conda env create -f environment.yml       then conda activate chatlib, and make lab
  Docker   docker compose up -d --wait broker        then CHATLIB_BROKER_URL=amqp://chatlib:chatlib@127.0.0.1:5672/ make lab
TEXT
    exit 1
}

begin "RabbitMQ"
if [ "$what" = lab ] && [ -n "${CHATLIB_BROKER_URL:-}" ]; then
    ok "the one that CHATLIB_BROKER_URL names"
elif place=$(find_rabbitmq); then
    ok "$place"
else
    { have_apt && become_root; } || no_rabbitmq
    forbid_services
    apt_install rabbitmq-server || fail "apt could not install rabbitmq-server: $(reason)"
    # Where systemd runs it would start the system broker at the next boot.
    if [ -d /run/systemd/system ]; then logged "${as_root[@]}" systemctl disable rabbitmq-server || true; fi
    allow_services
    place=$(find_rabbitmq) || fail "apt installed rabbitmq-server, but no rabbitmq-server program is to be found"
    ok "installed $place"
fi

# ---- 3 the virtual environment --------------------------------------------------------------------------------------

begin "Virtual environment $venv"
# Its programs name its folder, and its packages belong to one Python: in a moved checkout, and under another Python, it is made anew.
fits() {
    "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && "$venv/bin/pip" --version 2>/dev/null | grep -qF "$PWD/$venv/"
}
if ! fits; then
    rm -rf "$venv" "$state/packages"
    logged "$python" -m venv "$venv" || fail "could not create $venv: $(reason)"
fi
ok

# ---- 4 the packages -------------------------------------------------------------------------------------------------

# uv reads neither pip's variables nor its files. The common settings are handed over; what uv cannot take is left to pip.
pip_setting() { # NAME: the value that pip itself would use
    local variable=PIP_${1^^}
    variable=${variable//-/_}
    if [ -n "${!variable:-}" ]; then printf '%s' "${!variable}"; return; fi
    "$venv/bin/python" -m pip config get "install.$1" 2>/dev/null || "$venv/bin/python" -m pip config get "global.$1" 2>/dev/null || true
}

with_uv() {
    logged "$venv/bin/python" -m pip install --require-hashes -r requirements-uv.lock || return 1
    [ -z "$(pip_setting no-index)" ] || return 1
    local value
    value=$(pip_setting index-url); if [ -n "$value" ]; then export UV_DEFAULT_INDEX=$value; fi
    value=$(pip_setting cert); if [ -n "$value" ]; then export SSL_CERT_FILE=${SSL_CERT_FILE:-$value}; fi
    value=$(pip_setting proxy); if [ -n "$value" ]; then export ALL_PROXY=${ALL_PROXY:-$value}; fi
    logged "$venv/bin/uv" pip install -q --python "$venv/bin/python" --require-hashes --compile-bytecode -r requirements.lock || return 1
    logged "$venv/bin/uv" pip install -q --python "$venv/bin/python" --no-deps --no-build-isolation -e .
}

with_pip() {
    logged "$venv/bin/python" -m pip install --require-hashes -r requirements.lock || return 1
    logged "$venv/bin/python" -m pip install --no-deps --no-build-isolation -e .
}

begin "Python packages"
# The stamp names what was installed and where: a changed lock, a moved folder and a new interpreter all install again.
stamp=$( { cat requirements.lock requirements-uv.lock pyproject.toml; pwd; "$venv/bin/python" -V; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$state/packages" 2>/dev/null)" = "$stamp" ]; then
    ok "as locked"
else
    rm -f "$state/packages"
    with_uv || with_pip || fail "the packages could not be installed: $(reason)"
    printf '%s' "$stamp" >"$state/packages"
    ok
fi

[ "$what" = test ] || exit 0

# ---- 5 a browser ----------------------------------------------------------------------------------------------------

find_browser() {
    local name
    for name in ${CHATLIB_BROWSER:-} chromium chromium-browser google-chrome google-chrome-stable; do
        if command -v "$name"; then return 0; fi
    done
    return 1
}

driver_runs() { logged "$venv/bin/python" -m playwright --version; }

begin "Chromium (for the browser tests)"
how=""
if ! place=$(find_browser); then
    { have_apt && become_root; } || fail "no Chromium found; install it (Debian: apt install chromium) or name one in CHATLIB_BROWSER"
    apt_install chromium fonts-dejavu-core || fail "apt could not install chromium: $(reason)"
    place=$(find_browser) || fail "apt installed chromium, but no chromium program is to be found"
    how="installed "
fi
# playwright steers it by a Node of its own, which needs a library that a bare Debian lacks
if ! driver_runs; then
    { have_apt && become_root && apt_install libatomic1 && driver_runs; } || fail "playwright does not run: $(reason)"
fi
ok "$how$place"
