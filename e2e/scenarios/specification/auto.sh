# The job test-shared-storage-auto, and what the specification has beside it for mode=auto.
juju deploy "$CHARM" concourse-ci \
    --storage concourse-data=10G \
    --config mode=auto --config version="$FROM" --config release-url="$MIRROR" --config shared-storage=lxc
juju relate concourse-ci:postgresql postgresql:database
mark concourse-ci/0 concourse-data/0
settle

echo "=== Unit 0 should be leader running web server ==="
juju status
juju exec --unit concourse-ci/0 -- systemctl status concourse-server

STORAGE_ID=$(juju storage --format=json | jq -r '.storage | to_entries[] | select(.value.attachments.units | has("concourse-ci/0")) | .key')
echo "Storage ID: $STORAGE_ID"
expect "storage" "$STORAGE_ID" concourse-data/0
refused "is not shared" juju add-unit concourse-ci --attach-storage "$STORAGE_ID"
juju add-unit concourse-ci
juju add-unit concourse-ci
share concourse-ci/1 concourse-data/1
share concourse-ci/2 concourse-data/2
settle

juju storage --format=json | jq '.storage'
echo "=== Verifying all units see same filesystem ID ==="
for unit in 0 1 2; do
    juju exec --unit concourse-ci/$unit -- df -h /var/lib/concourse
    juju exec --unit concourse-ci/$unit -- ls -lah /var/lib/concourse/bin
done
expect "filesystems" "$(for unit in 0 1 2; do
    juju exec --unit concourse-ci/$unit -- stat -f -c '%i' /var/lib/concourse
done | sort -u | wc -l)" 1
echo "=== Checking binaries exist on all units ==="
for unit in 0 1 2; do
    juju exec --unit concourse-ci/$unit -- ls -lh /var/lib/concourse/bin/concourse
done
echo "=== Verifying version markers match ==="
expect "version markers" "$(for unit in 0 1 2; do
    juju exec --unit concourse-ci/$unit -- cat /var/lib/concourse/.installed_version
done | sort -u)" "$FROM"
echo "=== Verify single download (check logs) ==="
expect "downloads" "$(juju debug-log --replay --no-tail | grep -c "Downloading Concourse binaries")" 1
expect "downloads, by all that they log" "$(juju debug-log --replay --no-tail | grep "Downloading Concourse" | wc -l)" 1

echo "=== Disk usage per unit (should be same across all) ==="
expect "sizes" "$(for unit in 0 1 2; do juju exec --unit concourse-ci/$unit -- du -sh /var/lib/concourse/bin; done | sort -u | wc -l)" 1
echo "=== Binary file inodes (should match if truly shared) ==="
expect "inodes" "$(for unit in 0 1 2; do juju exec --unit concourse-ci/$unit -- stat -c '%i' /var/lib/concourse/bin/concourse; done | sort -u | wc -l)" 1
echo "=== Verify shared worker directories are isolated ==="
for unit in 0 1 2; do
    juju exec --unit concourse-ci/$unit -- ls -lah /var/lib/concourse/worker/
done

echo "=== Checking worker services ==="
juju exec --unit concourse-ci/1 -- systemctl status concourse-worker
juju exec --unit concourse-ci/2 -- systemctl status concourse-worker

echo "=== Current version on all units ==="
juju status concourse-ci --format=json | jq -r '.applications."concourse-ci".units | to_entries[] | "\(.key): \(.value."workload-status".message)"'
echo "=== Upgrading ==="
juju config concourse-ci version="$TO"
juju run concourse-ci/leader upgrade version="$TO"
sleep 30
settle
echo "=== Verifying all units upgraded ==="
juju status concourse-ci
UNIT_COUNT=$(juju status concourse-ci --format=json | jq '.applications."concourse-ci".units | length')
VERSION_COUNT=$(juju status concourse-ci --format=json | jq -r '.applications."concourse-ci".units[]["workload-status"].message' | grep -c "$TO" || echo 0)
expect "upgraded units" "$VERSION_COUNT" "$UNIT_COUNT"
echo "=== Verifying single download during upgrade ==="
expect "downloads of $TO" "$(juju debug-log --replay --no-tail | grep -c "Downloading Concourse.*$TO")" 1
