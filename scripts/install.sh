#!/bin/sh
# Installs edgeburst on this host as a service of systemd. `scripts/install.sh --help` says how.
set -eu

usage() {
    cat <<'END'
usage: scripts/install.sh client|edge [options] [-- more]

Installs the daemon (client) or the edge server (edge) as a service: a virtual environment with the locked releases, the
configuration in /etc/edgeburst, secrets as credentials of systemd, unit and socket. Run again, it brings everything up to
date and changes nothing else: a configuration and secrets that are there stay.

  --config FILE      client: the configuration, for /etc/edgeburst/edgeburst.toml
  --secrets FILE     lines NAME=VALUE, each of which becomes a credential of the unit: access key, tokens; -: stdin
  --open             edge: clients need no token; otherwise one is made where none is given
  --extras LIST      client: further extras, as grpc,otel
  --prefix DIR       the virtual environment (default /opt/edgeburst)
  --python PROGRAM   Python 3.10 to 3.13 (default python3)
  --no-start         enables the units, and starts nothing
  --uninstall        removes units, environment and commands; configuration, secrets and state stay
  --purge            with --uninstall: removes those too
  --dry-run          prints what would be done, and does nothing
  -- more            client: answers for `edgeburst config init`, where there is no configuration yet
                     edge: options of edgeburst-edge, as --model digits

examples:
  scripts/install.sh edge -- --model digits
  scripts/install.sh client --secrets keys -- --edge http://192.168.1.20:8700 --model digits --slo-s 0.5
  scripts/install.sh client --uninstall

exit status: 0 done, 2 not, with one sentence
END
}

fail() {
    echo "install.sh: $1" >&2
    exit 2
}

say() {
    echo "install.sh: $1"
}

# Does a step, or prints it.
run() {
    if [ -n "$dry" ]; then
        echo "+ $*"
    else
        "$@"
    fi
}

# Writes stdin to a file with a mode; leaves an equal file alone.
write() {
    if [ -n "$dry" ]; then
        cat >/dev/null
        echo "+ write $2 (mode $1)"
        return
    fi
    mkdir -p "$(dirname "$2")"
    (umask 077 && cat >"$2.new")
    if cmp -s "$2.new" "$2"; then
        rm -f "$2.new"
    else
        chmod "$1" "$2.new"
        mv "$2.new" "$2"
    fi
    chmod "$1" "$2"
}

role=${1:-}
case $role in
    client | edge) shift ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) fail "say what this host is: scripts/install.sh client, or scripts/install.sh edge (--help explains)" ;;
esac

dry='' config='' secrets='' open='' extras='' prefix=/opt/edgeburst python=python3 start=yes uninstall='' purge=''
while [ $# -gt 0 ]; do
    case $1 in
        --config | --secrets | --extras | --prefix | --python)
            [ $# -gt 1 ] || fail "$1 needs a value; scripts/install.sh --help explains"
            name=${1#--}
            shift
            case $name in
                config) config=$1 ;;
                secrets) secrets=$1 ;;
                extras) extras=$1 ;;
                prefix) prefix=$1 ;;
                python) python=$1 ;;
            esac
            ;;
        --open) open=yes ;;
        --no-start) start='' ;;
        --uninstall) uninstall=yes ;;
        --purge) purge=yes ;;
        --dry-run) dry=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        --)
            shift
            break
            ;;
        *) fail "option $1 is unknown; scripts/install.sh --help lists them" ;;
    esac
    shift
done
# What is left are the words after --.

source=$(cd "$(dirname "$0")/.." && pwd)
etc=/etc/edgeburst
credentials=$etc/credentials/$role
units=/etc/systemd/system
case $role in
    client) service=edgeburst sockets=edgeburst.socket programs='edgeburst edgeburst-local-fc' ;;
    edge) service=edgeburst-edge sockets=edgeburst-edge.socket programs='edgeburst-edge edgeburst-model' ;;
esac
case $role in
    client) other=edgeburst-edge ;;
    edge) other=edgeburst ;;
esac
# What the edge server is started with, where the unit reads it; it may hold a token, and says if none is needed.
defaults=/etc/default/edgeburst-edge token=''
if [ "$role" = edge ] && [ -r "$defaults" ]; then
    ! grep -q "^EDGE_TOKEN=." "$defaults" || token=yes
    ! grep -q "^EDGEBURST_EDGE_ACCESS=--open" "$defaults" || open=yes
fi
systemd=''
[ ! -d /run/systemd/system ] || systemd=yes

[ "$(id -u)" = 0 ] || [ -n "$dry" ] || fail "it writes to $prefix, /etc and $units: run it as root"
case $prefix in
    /*[!A-Za-z0-9._/-]*) fail "--prefix $prefix has characters that a unit cannot hold; use letters, digits, . _ - and /" ;;
    /*) ;;
    *) fail "--prefix $prefix is not absolute; begin it with /" ;;
esac

uninstall() {
    if [ -n "$systemd" ]; then
        run systemctl disable --now "$sockets" "$service.service" || true
    elif [ -e "$units/$service.service" ] && command -v systemctl >/dev/null; then
        run systemctl disable "$sockets" "$service.service" || true
    fi
    run rm -f "$units/$service.service" "$units/$sockets" "$units/$service.service.d/credentials.conf"
    # What an operator added there (systemctl edit) is configuration.
    if [ -n "$purge" ]; then
        run rm -rf "$units/$service.service.d"
    elif [ -d "$units/$service.service.d" ]; then
        run rmdir --ignore-fail-on-non-empty "$units/$service.service.d"
    fi
    [ -z "$systemd" ] || run systemctl daemon-reload
    for program in $programs; do
        if grep -q "^# Made by scripts/install.sh" "/usr/local/bin/$program" 2>/dev/null; then
            run rm -f "/usr/local/bin/$program"
        fi
    done
    if [ -e "$units/$other.service" ]; then
        say "$prefix stays: $other uses it"
    elif [ -e "$prefix/pyvenv.cfg" ]; then
        run rm -rf "$prefix"
    elif [ -e "$prefix" ]; then
        say "$prefix stays: it is no virtual environment"
    fi
    if [ -n "$purge" ]; then
        run rm -rf "$credentials" "/var/lib/$service" "/var/lib/private/$service" "/var/log/$service" "/var/log/private/$service"
        [ "$role" != client ] || run rm -f "$etc/edgeburst.toml"
        [ "$role" != edge ] || run rm -f "$defaults"
    fi
    say "$service is removed${purge:+, with its configuration, secrets and state}"
}

check() {
    [ -f "$source/setup.cfg" ] || fail "$source is no source tree of edgeburst: run it from one"
    command -v "$python" >/dev/null || fail "there is no $python: apt-get install python3-venv, or name one with --python"
    "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
        fail "$python is $("$python" --version 2>&1), but 3.10 to 3.13 are supported: name another with --python"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python makes no virtual environments: apt-get install python3-venv"
    if [ -e "$prefix" ] && [ ! -e "$prefix/pyvenv.cfg" ] && [ -n "$(ls -A "$prefix")" ]; then
        fail "$prefix holds something else than a virtual environment: name another folder with --prefix"
    fi
    command -v systemctl >/dev/null || fail "there is no systemctl: apt-get install systemd"
    [ -x /bin/kill ] || fail "there is no /bin/kill, which the units reload with: apt-get install procps"
    for file in "$config" "$secrets"; do
        [ -z "$file" ] || [ "$file" = - ] || [ -r "$file" ] || fail "$file cannot be read: correct --config or --secrets"
    done
}

environment() {
    board=''
    [ "$role" = client ] || [ ! -e /etc/nv_tegra_release ] || board=yes
    if [ ! -x "$prefix/bin/python" ]; then
        # A board brings numpy, OpenCV and torch of its own, which nothing here replaces.
        run "$python" -m venv ${board:+--system-site-packages} "$prefix"
    fi
    pip="$prefix/bin/python -m pip --disable-pip-version-check install --quiet"
    requirements=$source/scripts/requirements
    # shellcheck disable=SC2086 # these are words
    run $pip --constraint "$requirements/build.txt" pip setuptools
    if [ -n "$board" ]; then
        jetpack=6
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' && jetpack=7
        # shellcheck disable=SC2086
        run $pip --constraint "$requirements/jetpack-$jetpack.txt" "${source}[edge]"
        return
    fi
    locked=client
    [ "$role" = client ] || locked=edge-host
    # shellcheck disable=SC2086
    run $pip --require-hashes --requirement "$requirements/$locked.txt"
    [ -z "$dry" ] || {
        echo "+ $pip --no-deps --no-build-isolation $source"
        return
    }
    # Built from a copy, so that the source tree stays as it is.
    copy=$(mktemp -d)
    cp -rL "$source/setup.cfg" "$source/pyproject.toml" "$source/LICENSE" "$source/README.md" "$source/scheduler" \
        "$source/edge_server" "$source/serverless_fn" "$source/models" "$copy/"
    # shellcheck disable=SC2086
    $pip --no-deps --no-build-isolation --force-reinstall "$copy" || {
        rm -rf "$copy"
        fail "the package cannot be built: see above"
    }
    rm -rf "$copy"
    # shellcheck disable=SC2086
    [ -z "$extras" ] || $pip --constraint "$requirements/client.txt" "edgeburst[$extras]"
}

# Commands that find the secrets that the unit has, where the user may read them.
commands() {
    for program in $programs; do
        write 755 "/usr/local/bin/$program" <<END
#!/bin/sh
# Made by scripts/install.sh.
if [ -z "\${CREDENTIALS_DIRECTORY:-}" ] && [ -r $credentials ]; then
    CREDENTIALS_DIRECTORY=$credentials
    export CREDENTIALS_DIRECTORY
fi
exec $prefix/bin/$program "\$@"
END
    done
}

keep_secrets() {
    run install -d -m 755 "$etc"
    run install -d -m 700 "$etc/credentials" "$credentials"
    if [ -n "$secrets" ]; then
        # Not as stdin, from which the questions are answered.
        if [ "$secrets" = - ]; then exec 3<&0; else exec 3<"$secrets"; fi
        while IFS= read -r line <&3 || [ -n "$line" ]; do
            case $line in
                '' | '#'*) continue ;;
                [A-Za-z_]*=*) ;;
                *) fail "--secrets has a line that is not NAME=VALUE: correct it" ;;
            esac
            name=${line%%=*}
            case $name in *[!A-Za-z0-9_]*) fail "--secrets has the name $name: use letters, digits and _" ;; esac
            printf '%s' "${line#*=}" | tr -d '\r' | write 600 "$credentials/$name"
        done
    fi
    if [ "$role" = edge ] && [ -z "$open$token" ] && [ ! -s "$credentials/EDGE_TOKEN" ]; then
        od -An -N32 -tx1 /dev/urandom | tr -d ' \n' | write 600 "$credentials/EDGE_TOKEN"
        say "made the token that clients must send, in $credentials/EDGE_TOKEN: give it to the client host, in --secrets"
    fi
}

configuration() {
    if [ "$role" = edge ]; then
        [ $# -gt 0 ] || [ -n "$open" ] || return 0
        for word in "$@"; do
            case $word in '' | *[!A-Za-z0-9._/:,=@%+-]*) fail "-- $word has characters that $defaults cannot hold here: write it there" ;; esac
        done
        if [ -e "$defaults" ] && ! grep -q "^# Made by scripts/install.sh" "$defaults"; then
            say "$defaults stays as it is: change it there, or remove it first"
            return
        fi
        options="EDGEBURST_EDGE_OPTIONS=\"$*\""
        [ $# -gt 0 ] || options=$(grep "^EDGEBURST_EDGE_OPTIONS=" "$defaults" 2>/dev/null || true)
        {
            echo "# Made by scripts/install.sh."
            [ -z "$options" ] || echo "$options"
            [ -z "$open" ] || echo "EDGEBURST_EDGE_ACCESS=--open"
        } | write 600 "$defaults"
        return
    fi
    target=$etc/edgeburst.toml
    if [ -n "$config" ]; then
        write 644 "$target" <"$config"
    elif [ ! -e "$target" ]; then
        run "$prefix/bin/edgeburst" config init --out "$target" "$@"
    elif [ $# -gt 0 ]; then
        say "$target stays as it is: remove it first, or use edgeburst config init --force"
    fi
    [ -n "$dry" ] || "$prefix/bin/edgeburst" check-config --config "$target" --json >/dev/null ||
        "$prefix/bin/edgeburst" check-config --config "$target"
}

install_units() {
    for unit in "$service.service" "$sockets"; do
        sed "s|/opt/edgeburst|$prefix|g" "$source/scripts/systemd/$unit" | write 644 "$units/$unit"
    done
    {
        echo "# Made by scripts/install.sh of what lies in $credentials."
        echo "[Service]"
        for file in "$credentials"/*; do
            [ ! -e "$file" ] || echo "LoadCredential=$(basename "$file"):$file"
        done
    } | write 644 "$units/$service.service.d/credentials.conf"
    if [ -z "$systemd" ]; then
        run systemctl enable --quiet "$sockets" "$service.service"
        say "systemd does not run here: $service starts with the host"
        return
    fi
    run systemctl daemon-reload
    run systemctl enable --quiet "$sockets" "$service.service"
    [ -z "$start" ] || run systemctl restart "$sockets" "$service.service"
}

if [ -n "$uninstall" ]; then
    uninstall
    exit 0
fi
check
environment
commands
keep_secrets
configuration "$@"
install_units
case $role in
    client) say "done; next: edgeburst doctor --config $etc/edgeburst.toml" ;;
    edge) say "done; next, on the client host: scripts/install.sh client" ;;
esac
