# shellcheck shell=sh
# What the maintainer scripts and ./uninstall know about running machines. They must work when
# Mayfly itself is broken or half gone, so they read its records and ask nothing of it.

state_directories() {
    echo /var/lib/mayfly
    echo /var/lib/mayfly/host
    # A site may keep the service's machines elsewhere.
    sed -n 's/^[[:space:]]*state[[:space:]]*=[[:space:]]*"\(\/[^"]*\)".*/\1/p' \
        /etc/mayfly/host.toml 2>/dev/null || true
}

# field NAME FILE: one value of a record, which is JSON in one line.
field() {
    sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" "$2" 2>/dev/null || true
}

# is_alive PID STARTED: a pid alone names nobody, it is used again; and the ended but not yet
# collected count as gone.
is_alive() {
    case "$1:$2" in
    0:* | :* | *: | *[!0-9:]*) return 1 ;;
    esac
    # From the third field on: the second, a name, may hold anything.
    set -- "$2" "$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null || true)"
    case $2 in
    Z* | X* | '') return 1 ;;
    esac
    [ "$(echo "$2" | cut -d ' ' -f 20)" = "$1" ]
}

# Give "PID ID OWNER STATE" of each machine that runs; OWNER is null for nobody's.
living_machines() {
    state_directories | sort -u | while read -r directory; do
        for record in "$directory"/machines/*/*/record.json; do
            [ -f "$record" ] || continue
            pid=$(field pid "$record")
            is_alive "$pid" "$(field started "$record")" || continue
            owner=$(field owner "$record")
            # Those that are not the service's are root's own, of 'mayfly run'.
            [ "$directory" != /var/lib/mayfly ] || owner=0
            echo "$pid $(field id "$record") $owner $(field state "$record")"
        done
    done
}

# Machines that somebody has; what waits for a job ("standby", or on its way there) is nobody's.
somebodys_machines() {
    living_machines | grep -v -e ' null standby$' -e ' null starting$' || true
}

end_nobodys_machines() {
    living_machines | while read -r pid _ owner state; do
        case "$owner $state" in
        "null standby" | "null starting") kill -KILL "$pid" 2>/dev/null || true ;;
        esac
    done
}

# The memory of templates is held by processes that do nothing else; it can be read from disk again.
end_template_holders() {
    for holder in /var/cache/mayfly/templates/*/holder-*.json; do
        [ -f "$holder" ] || continue
        pid=$(field pid "$holder")
        if is_alive "$pid" "$(field started "$holder")"; then
            kill -KILL "$pid" 2>/dev/null || true
        fi
    done
}

refuse_while_machines_run() {
    running=$(somebodys_machines)
    [ -n "$running" ] || return 0
    {
        echo "mayfly: machines are running, which nobody would look after any more:"
        echo "$running" | while read -r pid name _ state; do
            echo "  $name  $state  (process $pid)"
        done
        echo "mayfly: end them first: 'mayfly host drain' lets no new ones start, 'mayfly machine list'"
        echo "mayfly: and 'mayfly machine delete ID' end those that are there; then try again"
    } >&2
    return 1
}

# Another supervisor than systemd may have started one, which cannot be stopped for it.
refuse_while_a_service_runs() {
    served=$(state_directories | sort -u | while read -r directory; do
        if [ -f "$directory/service.lock" ] && ! flock -n "$directory/service.lock" true; then
            echo "$directory"
        fi
    done)
    [ -n "$served" ] || return 0
    echo "mayfly: a host service runs that is not systemd's (it looks after $served): stop it first" >&2
    return 1
}

# Within a machine of Mayfly there is something else in this directory.
remove_socket() {
    rm -f /run/mayfly/host.sock /run/mayfly/.host.sock.*
    rmdir /run/mayfly 2>/dev/null || true
}
