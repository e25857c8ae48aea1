package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// mendTarget is how soon a damaged release is found and installed anew.
const mendTarget = 3 * time.Minute

// Corruption takes a file out of the installed release and forges the file that names
// the installed version. The release is installed anew beside what runs, by one
// download, and the log of activations stays the truth.
func Corruption(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.deploy(3, nil)
	r.active(3, in.From.Version)
	before := r.atRest("three units", in.From.Version)

	require.NoError(t, r.volume.Change(ctx, ".installed_version", func([]byte) []byte { return []byte("9.9.9\n") }))
	r.aMoment(30 * time.Second)
	forged := in.Record.Observe(ctx, "a forged version file", false, "")
	require.Equal(t, before.Machines[app+"/0"].Services, forged.Machines[app+"/0"].Services, "a forged file moved services")
	require.NoError(t, r.volume.Change(ctx, ".installed_version", func([]byte) []byte { return []byte(in.From.Version + "\n") }))

	in.Record.Allow(in.From.Version, 2)
	start := time.Now()
	require.NoError(t, r.volume.Change(ctx, "releases/"+in.From.Version+"/bin/runc", func([]byte) []byte { return nil }))
	err := cluster.Poll(ctx, "the release to be installed anew", time.Second, mendTarget, func(context.Context) (bool, error) {
		transfer := in.Mirror.Transfer(in.From.Version)
		return transfer.Sent == 2*transfer.Size, nil
	})
	require.NoError(t, err)
	in.Report.Add("a missing file found, the release downloaded anew", time.Since(start), mendTarget, nil)
	r.recover("a damaged release mended", 3)
}

// FlippedByte changes one byte of a file of the installed release. It is found and mended.
func FlippedByte(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.deploy(2, nil)
	r.active(2, in.From.Version)
	r.atRest("two units", in.From.Version)

	in.Record.Allow(in.From.Version, 2)
	require.NoError(t, r.volume.Change(ctx, "releases/"+in.From.Version+"/bin/runc", func(content []byte) []byte {
		content[len(content)/2] ^= 1
		return content
	}))
	r.recover("a flipped byte mended", 2)
}
