# The job test-shared-storage-all.
juju deploy "$CHARM" concourse-ci \
    --storage concourse-data=10G \
    --config mode=all --config version="$FROM" --config release-url="$MIRROR" --config shared-storage=lxc
juju relate concourse-ci:postgresql postgresql:database
mark concourse-ci/0 concourse-data/0
settle
juju exec --unit concourse-ci/0 -- systemctl status concourse-server
juju exec --unit concourse-ci/0 -- systemctl status concourse-worker

STORAGE_ID=$(juju storage --format=json | jq -r '.storage | to_entries[] | select(.value.attachments.units | has("concourse-ci/0")) | .key')
echo "Attaching unit 1 to storage: $STORAGE_ID"
refused "is not shared" juju add-unit concourse-ci --attach-storage "$STORAGE_ID"
juju add-unit concourse-ci
share concourse-ci/1 concourse-data/1
settle

echo "=== Both units should see same binaries ==="
for unit in 0 1; do
    echo "Unit $unit:"
    juju exec --unit concourse-ci/$unit -- ls -lh /var/lib/concourse/bin/concourse
    expect "version marker" "$(juju exec --unit concourse-ci/$unit -- cat /var/lib/concourse/.installed_version)" "$FROM"
done
echo "=== Verify second unit didn't re-download ==="
expect "downloads" "$(juju debug-log --replay --no-tail | grep -c "Downloading Concourse binaries")" 1
