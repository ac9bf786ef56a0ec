# Set-up shared by tools/demo and tools/test; sourced by them with ROOT set, never run.
#
# Owns .venv/ (the package and its tools) and .venv-libzmq/ (a libzmq peer that speaks PGM). A
# finished step leaves a stamp, a hash of all that it depended on, so that a second run only
# compares hashes. A lock per clone keeps two runs from building at once; clones share nothing.

VENV=$ROOT/.venv
PEER_VENV=$ROOT/.venv-libzmq
TEST_EXTRAS=cli,test,docs
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

heading() { printf '== %s\n' "$*"; }
note() { printf -- '-- %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}
is_root() { [ "$(id -u)" -eq 0 ]; }

# Takes this clone's lock, waiting for another run's set-up; unlock_setup gives it back.
lock_setup() {
    exec 9>"$ROOT/.venv.lock"
    flock --nonblock 9 && return
    note "another run is setting up this clone; waiting for it"
    flock 9
}
unlock_setup() { exec 9>&-; }

# install_packages PACKAGE...: installs those that are missing; says why and returns 1 if it can't.
install_packages() {
    local package missing=()
    for package in "$@"; do
        case $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) in
            installed) ;;
            *) missing+=("$package") ;;
        esac
    done
    [ ${#missing[@]} -eq 0 ] && return
    if ! command -v apt-get >/dev/null; then
        note "this is not Debian; install its equivalent of: ${missing[*]}"
        return 1
    fi
    if ! is_root; then
        note "missing Debian packages; run as root: apt-get install ${missing[*]}"
        return 1
    fi
    heading "Debian packages: ${missing[*]}"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    local install=("${apt[@]}" install -y --no-install-recommends "${missing[@]}")
    # The package lists of a new machine are empty or old: on failure refresh them and try again.
    "${install[@]}" >/dev/null 2>&1 && return
    "${apt[@]}" update && "${install[@]}" >/dev/null && return
    note "apt-get could not install: ${missing[*]}"
    return 1
}

# Sets PYTHON (3.11 or later; MCAST_PYTHON overrides the search) and INTERPRETER, its identity.
find_python() {
    local candidate
    PYTHON=
    for candidate in ${MCAST_PYTHON:-python3 /usr/bin/python3 python3.13 python3.12 python3.11}; do
        INTERPRETER=$("$candidate" -c '
import sys
sys.exit(1) if sys.version_info < (3, 11) else print(sys.executable, sys.version)
' 2>/dev/null) || continue
        PYTHON=${INTERPRETER%% *}
        return
    done
    fail "no Python 3.11 or later in PATH (Debian: apt-get install python3); MCAST_PYTHON=/path/to/python3 names one"
}

# Debian splits CPython: environments and headers come in packages of their own.
complete_python() {
    local base
    base=$("$PYTHON" -c 'import sys; print(sys.base_prefix)')
    if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        [ "$base" = /usr ] || fail "$PYTHON has no ensurepip module, so it cannot make an environment"
        install_packages python3-venv || fail "$PYTHON cannot make an environment: apt-get install python3-venv"
    fi
    if [ "$base" = /usr ] && ! has_headers; then
        install_packages python3-dev || note "no Python headers: the native kernel is not built"
    fi
}

has_headers() {
    "$PYTHON" -c '
import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file())'
}
can_compile() { command -v "${CC:-cc}" >/dev/null && has_headers; }

# hash_of FILE... (missing ones are skipped) and, on stdin, whatever else the step depends on.
hash_of() {
    local file
    {
        cat
        for file in "$@"; do
            if [ -f "$file" ]; then printf '\n%s\n' "${file#"$ROOT"/}" && cat "$file"; fi
        done
    } | sha256sum | cut -d' ' -f1
}

# native_mode: what this machine and tree allow of the native kernel: build, or why not.
native_mode() {
    if [ "${MCAST_NATIVE:-auto}" = skip ]; then
        echo "MCAST_NATIVE=skip"
    elif [ ! -f "$ROOT/mcast/kernel/_native.pyx" ]; then
        echo "no source"
    elif ! can_compile; then
        echo "no compiler"
    else
        echo build
    fi
}

stamp_key() {
    printf '%s\n' "$INTERPRETER" "$ROOT" "$1" "$(native_mode)" |
        hash_of "$ROOT"/{pyproject.toml,setup.py} "$ROOT"/mcast/kernel/*.{pyx,pxi,pxd,h}
}

# is_current EXTRAS: whether .venv already holds what install_mcast EXTRAS would make.
is_current() { [ "$(cat "$VENV/stamp-$1" 2>/dev/null)" = "$(stamp_key "$1")" ]; }

# install_mcast EXTRAS NATIVE: .venv with an editable install of this clone, where NATIVE is what
# setup.py reads as MCAST_NATIVE; returns 1 when pip fails.
install_mcast() {
    heading "set-up: .venv with mcast[$1], native kernel: $2"
    complete_python
    rm -f "$VENV"/stamp-*
    if [ "$(cat "$VENV/interpreter" 2>/dev/null)" != "$INTERPRETER" ]; then
        "$PYTHON" -m venv --clear "$VENV" || return 1
        printf '%s\n' "$INTERPRETER" >"$VENV/interpreter"
    fi
    # An extension of an earlier build must not outlive a build that fails.
    rm -f "$ROOT"/mcast/kernel/_native.*.so
    MCAST_NATIVE=$2 "$VENV/bin/python" -m pip install --quiet --editable "${ROOT}[$1]" || return 1
    stamp_key "$1" >"$VENV/stamp-$1"
}

# has_native: whether .venv has the compiled kernel, complete and loadable.
has_native() { (cd "$ROOT" && MCAST_KERNEL=native "$VENV/bin/python" -c 'import mcast.kernel' 2>/dev/null); }

# Why has_native said no, in one line.
why_no_native() {
    (cd "$ROOT" && MCAST_KERNEL=native "$VENV/bin/python" -c 'import mcast.kernel' 2>&1 | tail -n 1)
}

# install_libzmq_peer: .venv-libzmq/ with pyzmq on Debian's libzmq, the build that speaks PGM.
# The wheel on PyPI will not do: its libzmq is built without PGM. Sets MCAST_LIBZMQ_PYTHON, unless
# the caller's environment names a peer, or notes why there is none and returns 1.
install_libzmq_peer() {
    local stamp=$PEER_VENV/stamp key verify
    [ -z "${MCAST_LIBZMQ_PYTHON:-}" ] || return 0
    install_packages g++ pkg-config libzmq5 libzmq3-dev || return 1
    key=$(printf '%s\n' "$INTERPRETER" "$ROOT" pyzmq-1 "$(dpkg-query --show libzmq5 libzmq3-dev)" | hash_of)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$key" ]; then
        heading "set-up: .venv-libzmq with pyzmq on the system's libzmq"
        complete_python
        "$PYTHON" -m venv --clear "$PEER_VENV" || return 1
        # --no-cache-dir: pip would reuse a wheel that an earlier build made with another libzmq.
        # PYZMQ_NO_BUNDLE: without the system's libzmq fail, rather than build one without PGM.
        env -u ZMQ_PREFIX PYZMQ_NO_BUNDLE=1 "$PEER_VENV/bin/python" -m pip install --quiet --no-cache-dir \
            --no-binary pyzmq 'pyzmq>=26' || {
            note "no libzmq peer: pyzmq did not build"
            return 1
        }
        verify='import zmq; assert zmq.has("pgm"); print("libzmq", zmq.zmq_version(), "with PGM")'
        "$PEER_VENV/bin/python" -c "$verify" || {
            note "no libzmq peer: pyzmq was built, but on a libzmq without PGM"
            return 1
        }
        printf '%s\n' "$key" >"$stamp"
    fi
    export MCAST_LIBZMQ_PYTHON=$PEER_VENV/bin/python
}

# install_pyzmq_peer: .venv-pyzmq/ with the pyzmq wheel, which carries the newest libzmq, without
# PGM. Sets MCAST_PYZMQ_PYTHON, unless the caller's environment names a peer, or returns 1.
install_pyzmq_peer() {
    local venv=$ROOT/.venv-pyzmq
    [ -z "${MCAST_PYZMQ_PYTHON:-}" ] || return 0
    if ! "$venv/bin/python" -c 'import zmq' 2>/dev/null; then
        heading "set-up: .venv-pyzmq with the pyzmq wheel"
        complete_python
        "$PYTHON" -m venv --clear "$venv" || return 1
        "$venv/bin/python" -m pip install --quiet --only-binary pyzmq pyzmq || {
            note "no pyzmq peer: pip could not install the wheel"
            return 1
        }
    fi
    export MCAST_PYZMQ_PYTHON=$venv/bin/python
}
