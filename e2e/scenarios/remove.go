package scenarios

import (
	"context"
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Remove removes the web server's unit, then the whole application, and deploys it again on the
// same volume, where the release still is: nothing is downloaded.
func Remove(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.deploy(3, nil)
	deployed := r.active(3, in.From.Version)
	r.login(r.atRest("three units", in.From.Version), in.From)
	server := r.server(deployed.Status)

	r.quiet() // another unit becomes the web server
	r.phase("web server removed", 0, func() cluster.Held {
		require.NoError(t, c.RemoveUnit(ctx, server))
		return r.wait("removal of the web server", cluster.All(cluster.Gone(server), servedByOther(server), cluster.UnitsAre(app, 2, cluster.Active, "v"+in.From.Version), noneLands))
	})
	r.login(in.Record.Observe(ctx, "another unit serves", false, ""), in.From)
	now, err := c.Status(ctx)
	require.NoError(t, err)
	r.registered("the worker that is left at the new web server", workersOf(now))
	two := r.atRest("web server removed", in.From.Version)
	r.buildOn("a build on the worker that is left", workersOf(two.Status))

	r.quiet()
	r.phase("application removed", 0, func() cluster.Held {
		require.NoError(t, c.RemoveApp(ctx, app))
		return r.wait("removal of the application", func(s cluster.Status) error {
			if _, there := s.Apps[app]; there {
				return fmt.Errorf("it is still there, with %d units", len(s.Units(app)))
			}
			return nil
		})
	})
	r.phase("application deployed again on the same volume", clusterTarget, func() cluster.Held {
		require.NoError(t, c.Deploy(ctx, cluster.App{Name: app, Charm: in.Charm, Units: 2, Config: r.options(nil), Volume: r.volume}))
		r.relateDatabase()
		return r.active(2, in.From.Version)
	})
	again := r.atRest("deployed again", in.From.Version)
	r.login(again, in.From)
	r.buildOn("a build after the redeployment", workersOf(again.Status))
	r.atRest("the workers of before forgotten", in.From.Version)
}
