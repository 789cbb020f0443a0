# shellcheck shell=sh disable=SC2154
# What the commands in bin/ share; sourced, never run. The caller sets `me` (its name) and `top`
# (the project's folder) first.

# Colours are for terminals only.
[ -t 1 ] || export REBAR_COLOR=none

say() { printf '%s: %s\n' "$me" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

cores() { getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2; }

cache_dir() { printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/erlang_python"; }

# as_root COMMAND...: as root or by sudo; status 77 when this user may do neither.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo "$@"
    else
        return 77
    fi
}

is_installed() {
    dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q '^install ok installed'
}

# install_packages PACKAGE...: what of these Debian packages is missing, with one apt-get.
install_packages() {
    missing=
    for package; do
        is_installed "$package" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || die "please install what Debian calls:$missing"
    say "installing$missing"
    # shellcheck disable=SC2086 # a list of words
    if as_root sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null' \
        sh $missing; then
        return 0
    elif [ $? = 77 ]; then
        die "please run, as root: apt-get install --no-install-recommends$missing"
    fi
    die "apt-get could not install$missing"
}

# want_packages PACKAGE...: of these, those that can be had; whoever uses them says what is missing.
want_packages() {
    command -v apt-get >/dev/null || return 0
    (install_packages "$@") 2>/dev/null && return
    for package; do
        (install_packages "$package") || true
    done
}

# The OTP applications among $@ that erl does not have.
missing_otp() {
    erl -noshell -eval '
        Missing = [A || A <- init:get_plain_arguments(), code:lib_dir(list_to_atom(A)) =:= {error, bad_name}],
        io:put_chars(lists:join(" ", Missing)), halt().' -extra "$@"
}

# need_tools [OTP-APPLICATION...]: what building takes, and those applications. Looks for the tools
# themselves, so that an Erlang or a compiler from elsewhere is as good as Debian's.
need_tools() {
    wanted=
    command -v erl >/dev/null || wanted="$wanted erlang-base"
    command -v rebar3 >/dev/null || wanted="$wanted rebar3"
    command -v cmake >/dev/null || wanted="$wanted cmake"
    command -v make >/dev/null || wanted="$wanted make"
    if ! command -v cc >/dev/null; then
        wanted="$wanted gcc libc6-dev"
    elif ! echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1; then
        wanted="$wanted libc6-dev"
    fi
    "$top/bin/python" --find system >/dev/null 2>&1 || wanted="$wanted python3-dev"
    # shellcheck disable=SC2086
    [ -z "$wanted" ] || install_packages $wanted

    wanted=
    [ -n "$(find -L "$(erl -noshell -eval 'io:put_chars(code:root_dir()), halt().')" \
        -maxdepth 3 -name erl_nif.h 2>/dev/null)" ] || wanted=erlang-dev
    for application in $(missing_otp "$@"); do
        wanted="$wanted erlang-$(echo "$application" | tr _ -)"
    done
    # shellcheck disable=SC2086
    [ -z "$wanted" ] || install_packages $wanted
}

# The flavour of a config script, e.g. 3.13t; nothing when it is none or does not run.
flavour() {
    "$1" --includes 2>/dev/null | tr ' ' '\n' | sed -n 's|.*/python\(3\.[0-9]*[a-z]*\)$|\1|p' | head -n 1
}

# best_python: the SPEC of the Python that PYTHON_CONFIG names; without it, of the newest there is
# that has a parallel mode; else `system`.
best_python() {
    if [ -n "${PYTHON_CONFIG:-}" ]; then
        flavour "$PYTHON_CONFIG"
        return
    fi
    for spec in 3.15 3.14 3.13 3.12; do
        if "$top/bin/python" --find "$spec" >/dev/null 2>&1; then
            echo "$spec"
            return
        fi
    done
    echo system
}
