#!/bin/bash
# The demo: a throwaway server embeds this machine's package catalogue and answers questions about it.
# Usage: tests/demo.sh [clean]. make demo sets up first and then calls this; it can be run again and again.
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C PGCLIENTENCODING=UTF8

HERE=$(cd "$(dirname "$0")" && pwd)
DIR=${EMBEDD_DEMO_DIR:-/var/tmp/embedd-demo}
ROWS=${EMBEDD_DEMO_ROWS:-6000}
MARKER=$DIR/.embedd-demo
DATA=$DIR/data
LOG=$DIR/server.log
BIN=$("${PG_CONFIG:-pg_config}" --bindir)
# PostgreSQL refuses to run as root; so the server runs as the user that Debian's package creates for it.
OWNER=$([ "$(id -u)" -eq 0 ] && echo postgres || id -un)

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

as_owner() {
    if [ "$(id -u)" -eq 0 ]; then
        (cd / && setpriv --reuid="$OWNER" --regid="$OWNER" --init-groups -- env HOME="$DIR" "$@")
    else
        (cd / && "$@")
    fi
}

sql() { "$BIN/psql" -X -q -h "$DIR" -p "$(cat "$DIR/port")" -U postgres -d demo -v ON_ERROR_STOP=1 "$@" </dev/null; }

# Stops what an earlier run left and removes its directory, which has to carry this script's marker.
remove_old() {
    [ -e "$DIR" ] || return 0
    [ -f "$MARKER" ] || fail "$DIR is there and was not made by this demo: remove it, or set EMBEDD_DEMO_DIR"
    if [ -f "$DATA/postmaster.pid" ]; then
        as_owner "$BIN/pg_ctl" -D "$DATA" -m fast -w -t 60 stop >/dev/null 2>&1 ||
            ! as_owner "$BIN/pg_ctl" -D "$DATA" status >/dev/null 2>&1 || fail "the server in $DATA does not stop"
    fi
    rm -rf "$DIR"
}

# The first free port from 54320 up.
free_port() {
    local port=54320
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}

# The directory is closed to other users and the server listens on its socket there alone, so trust is safe.
start_server() {
    install -d -m 0700 "$DIR"
    touch "$MARKER"
    free_port >"$DIR/port"
    [ "$(id -u)" -ne 0 ] || chown -R "$OWNER": "$DIR"
    as_owner "$BIN/initdb" -A trust -U postgres --encoding=UTF8 --locale=C -D "$DATA" >"$DIR/initdb.log" 2>&1 ||
        { cat "$DIR/initdb.log" >&2; fail "initdb failed"; }
    cat >>"$DATA/postgresql.conf" <<-CONF
		shared_preload_libraries = 'embedd'
		listen_addresses = ''
		unix_socket_directories = '$DIR'
		port = $(cat "$DIR/port")
		max_worker_processes = 16
	CONF
    as_owner "$BIN/pg_ctl" -D "$DATA" -l "$LOG" -w -t 60 start >/dev/null || fail "the server does not start"
    as_owner "$BIN/createdb" -h "$DIR" -p "$(cat "$DIR/port")" -U postgres demo
}

# Everything that apt could install, as CSV: name, section, installed size in kB, description. Where a description
# has a long text it follows the synopsis, without the marks that lay it out.
catalogue() {
    apt-cache dumpavail | awk '
        function quoted(text) { gsub(/"/, "\"\"", text); return "\"" text "\"" }
        function flush() {
            if (name != "" && text != "") print quoted(name) "," quoted(section) "," (size + 0) "," quoted(text)
            name = section = text = ""; size = 0; inside = 0
        }
        /^$/ { flush(); next }
        /^ / { if (inside && $0 != " .") text = text $0; next }
        { inside = 0 }
        /^Package: / { name = $2 }
        /^Section: / { section = $2; sub(/.*\//, "", section) }
        /^Installed-Size: / { size = $2 }
        /^Description(-en)?: / { sub(/^[^:]*: /, ""); text = $0; inside = 1 }
        END { flush() }'
}

fetch_lists() {
    say "apt has no package lists yet: fetching them"
    if [ "$(id -u)" -eq 0 ]; then apt-get -qq update; else sudo apt-get -qq update; fi
}

load_packages() {
    catalogue >"$DIR/catalogue.csv"
    if [ "$(wc -l <"$DIR/catalogue.csv")" -lt 1000 ]; then
        fetch_lists
        catalogue >"$DIR/catalogue.csv"
    fi
    sql -v rows="$ROWS" -v catalogue="$DIR/catalogue.csv" -f "$HERE/demo/load.sql"
}

# One line that is drawn again on a terminal, and a line now and then elsewhere. Gives up when nothing moves.
show_progress() {
    local state done_rows total error last=-1 since=$SECONDS begin=$SECONDS line shown=-10
    while :; do
        IFS='|' read -r state done_rows total error < <(sql -At -c "SELECT sync_status, coalesce(synced_rows, 0),
            coalesce(total_rows, 0), translate(coalesce(last_error, ''), E'\n|', '  ')
            FROM embedd.sync_status('packages-search')") || fail "embedd.sync_status gave no answer"
        if [ "$done_rows" != "$last" ]; then last=$done_rows since=$SECONDS; fi
        line="$state: $done_rows of $total rows after $((SECONDS - begin)) s"
        if [ -t 1 ]; then
            printf '\r   %-60s' "$line"
        elif [ "$state" = synced ] || [ $((SECONDS - shown)) -ge 10 ]; then
            printf '   %s\n' "$line"
            shown=$SECONDS
        fi
        if [ "$state" = synced ]; then break; fi
        [ "$state" != error ] || fail "the backfill stopped: $error"
        [ $((SECONDS - since)) -lt 180 ] || fail "the backfill has not moved for 3 minutes ($error)"
        sleep 0.5
    done
    if [ -t 1 ]; then echo; fi
}

demo() {
    say "a PostgreSQL of its own in $DIR, run by the user $OWNER"
    remove_old
    trap 'tail_log $?' EXIT
    start_server
    say "loading packages from this machine's catalogue (apt-cache dumpavail)"
    load_packages
    say "the vector table: which columns are the text, which are for filters"
    sql -f "$HERE/demo/create.sql"
    say "the backfill: PostgreSQL embeds every row itself"
    show_progress
    sql -f "$HERE/demo/ask.sql"
    trap - EXIT
    farewell
}

# What to look at when something went wrong.
tail_log() {
    [ "$1" -eq 0 ] && return
    printf '\ndemo: failed; the end of %s:\n' "$LOG" >&2
    tail -n 30 "$LOG" >&2 2>/dev/null || true
}

farewell() {
    say "go on with"
    printf '   %s\n' "$BIN/psql -h $DIR -p $(cat "$DIR/port") -U postgres demo"
    printf '   %s\n' "SELECT id, score FROM embedd.query('packages-search', 'your question');"
    say "stop the server and remove it with"
    printf '   %s\n' "make clean-demo"
}

case ${1:-} in
'') demo ;;
clean)
    remove_old
    say "$DIR is gone"
    ;;
*) fail "usage: tests/demo.sh [clean]" ;;
esac
