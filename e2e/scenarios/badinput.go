package scenarios

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// BadInputVolume is a volume size that holds one release and its download, and
// that a scenario can fill without filling the pool.
const BadInputVolume = "2GiB"

// nowhere is a repository that refuses connections.
const nowhere = "http://127.0.0.1:9/concourse/concourse"

// reaction is how long a unit may take to notice a cause, or its end, without
// anybody touching it: the watcher retries every 30 s at most.
const reaction = 3 * time.Minute

// trouble is a wrong input and what the unit must say about it.
type trouble struct {
	name  string
	cause func() error
	says  []string // what is wrong and what to do: all must be in the status message
}

// BadInput takes one unit through everything that an operator or a network can
// get wrong. Each time the unit says what is wrong, nothing is half installed,
// and the unit goes on by itself when the cause is gone.
func BadInput(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := &run{T: t, ctx: ctx, c: c, in: in}
	const unit = app + "/0"
	configure := func(option, value string) func() error {
		return func() error { return c.Configure(ctx, app, map[string]string{option: value}) }
	}
	breaking := func(fault cluster.MirrorFault) func() error {
		return func() error { in.Mirror.Break(in.From.Version, fault); return nil }
	}
	meet := func(troubles []trouble, after func(trouble)) {
		for _, tr := range troubles {
			start := time.Now()
			require.NoError(t, tr.cause(), tr.name)
			s := r.wait(tr.name, 10*time.Minute, cluster.Settled(unit, tr.says...))
			u, _ := s.Unit(unit)
			in.Report.Add(tr.name, time.Since(start), 0, nil)
			in.Report.Note(tr.name, "%s: %s", u.Workload, u.Message)
			after(tr)
		}
	}

	config := in.config()
	config["release-url"] = nowhere
	meet([]trouble{
		{"volume not mounted", func() error {
			return c.Deploy(ctx, cluster.App{Name: app, Charm: in.Charm, Units: 1, Config: config})
		}, []string{"shared storage"}},
	}, func(trouble) {
		require.Empty(t, strings.TrimSpace(r.exec(unit, "ls -A "+root+" 2>/dev/null || true")), "the directory under a missing mount was written to")
	})
	// Before the first install: after each of these the volume must be without
	// any trace of a release.
	meet([]trouble{
		{"no database relation", func() error { return c.AttachVolume(ctx, unit) }, []string{"PostgreSQL database required"}},
		{"mirror unreachable", func() error {
			if err := c.Deploy(ctx, in.Database); err != nil {
				return err
			}
			return c.Integrate(ctx, app+":postgresql", in.Database.Name+":database")
		}, []string{"unreachable", "release-url"}},
		{"mirror without the version", func() error {
			in.Mirror.Break(in.From.Version, cluster.NotFound)
			return c.Configure(ctx, app, map[string]string{"release-url": in.Mirror.URL()})
		}, []string{"not found", "release-url"}},
		{"web page instead of a tarball", breaking(cluster.WebPage), []string{"not a release archive", "release-url"}},
		{"wrong digest", breaking(cluster.WrongDigest), []string{"digest mismatch", "release-digest"}},
		{"disk full", func() error {
			_, err := c.Exec(ctx, unit, "sh", "-c", fill)
			in.Mirror.Repair(in.From.Version)
			return err
		}, []string{"space", "enlarge the volume"}},
	}, func(tr trouble) {
		left := r.exec(unit, "cd "+root+" && find releases bin .installed_version -maxdepth 1 -not -path releases 2>/dev/null; true")
		require.Empty(t, strings.TrimSpace(left), "half an installation after: %s", tr.name)
	})
	start := time.Now()
	r.exec(unit, "rm "+filler)
	r.wait("recovery by itself", 10*time.Minute, cluster.UnitsAre(app, 1, cluster.Active, "v"+in.From.Version))
	in.Report.Add("recovery by itself", time.Since(start), 0, nil)
	require.Equal(t, in.From.Version, strings.TrimSpace(r.exec(unit, "cat "+root+"/.installed_version")))

	// On a running unit: it says so, and takes back what it said.
	for _, wrong := range []struct {
		option, value, right string
		says                 []string
	}{
		{"mode", "everything", "auto", []string{"unknown mode", "auto"}},
		{"version", "newest please", in.From.Version, []string{"malformed version", "7.14.3"}},
	} {
		name := fmt.Sprintf("%s=%q", wrong.option, wrong.value)
		meet([]trouble{{name, configure(wrong.option, wrong.value), wrong.says}}, func(trouble) {})
		start := time.Now()
		require.NoError(t, configure(wrong.option, wrong.right)())
		r.wait("recovery from "+name, reaction, cluster.UnitsAre(app, 1, cluster.Active, "v"+in.From.Version))
		in.Report.Add("recovery from "+name, time.Since(start), 0, nil)
	}
}

const filler = root + "/filler"

// fill takes all but less than 50 MB of the volume. Neither free space nor
// quota can be asked for in a way that holds on every driver, so it tries.
const fill = `for mb in $(seq 4000 -50 50); do
	fallocate --length "${mb}M" ` + filler + ` 2>/dev/null && exit 0
	rm -f ` + filler + `
done
exit 1`
