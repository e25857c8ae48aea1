# What the specification's commands stand on, or need beside them. Each function says why.

# settle stands for `juju-wait`, a snap of its own: all units are active, their agents idle,
# for as long as that waits.
settle() {
    still=0
    until [ $still -ge 15 ]; do
        sleep 1
        if juju status --format=json | jq -e '[.applications[].units // {} | .[]
            | select(."workload-status".current != "active" or ."juju-status".current != "idle")] == []' >/dev/null; then
            still=$((still + 1))
        else
            still=0
        fi
    done
}

# machine prints the container that a unit is in.
machine() { juju status "$1" --format=json | jq -r '.machines[]."instance-id"'; }

# attached waits until Juju has attached a storage, or has taken it away.
attached() { until juju storage | grep -q "$1 .* $2"; do sleep 1; done; }

# mark says of the volume that Juju has made for the first unit that it is shared, and keeps
# its name in $pool and $volume.
mark() {
    attached "$2" attached
    id=$(juju storage --filesystem --format=json | jq -r --arg storage "$2" '.filesystems[] | select(.storage == $storage)."provider-id"')
    pool=${id%%:*} volume=${id#*:}
    lxc exec "$(machine "$1")" -- touch /var/lib/concourse/.lxc_shared_storage
}

# share gives a unit the shared volume. Juju makes it one of its own, which has to go first.
share() {
    attached "$2" attached
    juju detach-storage "$2"
    attached "$2" detached
    juju remove-storage "$2"
    lxc config device add "$(machine "$1")" concourse-data disk pool="$pool" source="$volume" path=/var/lib/concourse
}

# refused tells whether Juju refuses a command, by what it says.
refused() {
    said=$1
    shift
    if out=$("$@" 2>&1); then
        echo "ERROR: it is not refused: $*"
        exit 1
    fi
    echo "$out"
    echo "$out" | grep -q "$said"
}

# expect is where the specification only prints.
expect() {
    echo "$1: $2 (expected: $3)"
    [ "$2" = "$3" ]
}
