package scenarios

import (
	"context"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// held is how much a mirror sends before it holds.
const held = 8 << 20

// underWay waits until a mirror that holds has sent what it sends.
func (r *run) underWay(version string) {
	r.Helper()
	require.NoError(r, cluster.Poll(r.ctx, "the download of "+version+" to be under way", time.Second, patience, func(context.Context) (bool, error) {
		return r.in.Mirror.Transfer(version).Sent > 0, nil
	}))
}

// holder returns the unit that downloads a version, which the mirror has sent to it alone.
func (r *run) holder(version string) string {
	r.Helper()
	status, err := r.c.Status(r.ctx)
	require.NoError(r, err)
	clients := r.in.Mirror.Transfer(version).Clients
	for _, u := range status.Units(app) {
		if slices.Equal(clients, []string{u.Address}) {
			return u.Name
		}
	}
	require.Fail(r, "no unit downloads alone", "%v of\n%s", clients, status)
	return ""
}

// asked waits until the mirror was asked for the archive of a version that often.
func (r *run) asked(version string, times int) {
	r.Helper()
	require.NoError(r, cluster.Poll(r.ctx, "the mirror to be asked for "+version, time.Second, patience, func(context.Context) (bool, error) {
		return len(r.in.Mirror.Attempts(version, "")) >= times, nil
	}))
}
