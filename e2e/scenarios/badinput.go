package scenarios

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// badInputVolume is a volume size that holds one release and its download, and
// that a scenario can fill without filling the pool.
const badInputVolume = "2GiB"

// closedPortURL is a repository that refuses connections.
const closedPortURL = "http://127.0.0.1:9/concourse/concourse"

// badInput is a wrong input and what the unit must say about it.
type badInput struct {
	name string
	make func() error
	says []string // what is wrong and what to do: all must be in the status message
}

// BadInput takes one unit through everything that an operator or a network can
// get wrong. Each time the unit is blocked and says what is wrong, nothing is half
// installed, and the unit goes on by itself when the cause is gone.
func BadInput(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, badInputVolume)
	const unit = app + "/0"
	breaking := func(fault cluster.MirrorFault) func() error {
		return func() error { in.Mirror.Break(in.From.Version, fault); return nil }
	}
	forEach := func(inputs []badInput) {
		for _, bad := range inputs {
			held := r.phase(bad.name, 0, func() cluster.Held {
				require.NoError(t, bad.make(), bad.name)
				return r.wait(bad.name, cluster.Blocked(unit, bad.says...))
			})
			u, _ := held.Unit(unit)
			in.Report.Note(bad.name, "%s: %s", u.Workload, u.Message)
			o := in.Record.Observe(ctx, bad.name, true, "")
			if v := o.Machines[unit].Volume; v != nil {
				require.Empty(t, v.Releases, "half an installation after: %s", bad.name)
				require.Empty(t, v.Bin, "half an installation after: %s", bad.name)
			}
		}
	}

	// With a wrong digest, on a full volume, and in the end.
	in.Record.Allow(in.From.Version, 3)
	full := r.volume.Full(50 << 20)
	forEach([]badInput{
		{"volume not mounted", func() error {
			return c.Deploy(ctx, cluster.App{Name: app, Charm: in.Charm, Units: 1, Config: r.options(map[string]string{"release-url": closedPortURL})})
		}, []string{"shared storage", "lxc config device add"}},
		// Before the first install: after each of these the volume must be without
		// any trace of a release.
		{"no database relation", func() error { return r.volume.Attach(ctx, unit) }, []string{"PostgreSQL database required"}},
		{"mirror unreachable", func() error {
			require.NoError(t, c.Deploy(ctx, in.Database))
			r.relateDatabase()
			return nil
		}, []string{"unreachable", "release-url"}},
		{"mirror without the version", func() error {
			in.Mirror.Break(in.From.Version, cluster.NotFound)
			r.configure("release-url", in.Mirror.URL())
			return nil
		}, []string{"not found", "release-url"}},
		{"web page instead of a tarball", breaking(cluster.WebPage), []string{"not a release archive", "release-url"}},
		{"wrong digest", breaking(cluster.WrongDigest), []string{"digest mismatch", "release-digest"}},
		{"disk full", func() error {
			err := full.Inject(ctx)
			in.Mirror.Repair(in.From.Version)
			return err
		}, []string{"space", "enlarge the volume"}},
	})
	r.phase("recovery by itself", 0, func() cluster.Held {
		require.NoError(t, full.Heal(ctx))
		return r.active(1, in.From.Version)
	})
	before := r.atRest("recovery by itself", in.From.Version)

	// On a running unit: it says so, takes back what it said, and touches no service.
	for _, wrong := range []struct {
		option, value, right string
		says                 []string
	}{
		{"mode", "everything", "auto", []string{"unknown mode", "auto"}},
		{"version", "newest please", in.From.Version, []string{"malformed version", "7.14.3"}},
		{"web-port", "2222", "8080", []string{"web-port", "65535"}},
	} {
		name := fmt.Sprintf("%s=%q", wrong.option, wrong.value)
		r.phase(name, 0, func() cluster.Held {
			r.configure(wrong.option, wrong.value)
			return r.wait(name, cluster.Blocked(unit, wrong.says...))
		})
		r.demand("undisturbed", judge.Undisturbed(before, in.Record.Observe(ctx, name, true, "")))
		r.phase("recovery from "+name, time.Minute, func() cluster.Held {
			r.configure(wrong.option, wrong.right)
			return r.active(1, in.From.Version)
		})
		r.demand("undisturbed", judge.Undisturbed(before, r.atRest("recovery from "+name, in.From.Version)))
	}
}
