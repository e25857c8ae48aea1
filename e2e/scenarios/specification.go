package scenarios

import (
	"context"
	"embed"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

//go:embed specification
var specification embed.FS

// SpecificationAuto types the commands that the specification has for mode=auto.
func SpecificationAuto(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	specified(ctx, t, c, in, "auto", in.To)
}

// SpecificationAll types those for mode=all.
func SpecificationAll(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	specified(ctx, t, c, in, "all", in.From)
}

// specified runs a script at a terminal, and looks at what it has led to.
func specified(ctx context.Context, t T, c cluster.Cluster, in Inputs, job string, release Release) {
	r := &run{T: t, ctx: ctx, c: c, in: in, quiet: func() {}}
	require.NoError(t, c.Deploy(ctx, in.Database)) // Charmhub's is a download.
	in.Record.Deploys(cluster.App{Name: app, Config: map[string]string{"shared-storage": "lxc"}})
	script := "set -eu\n"
	for _, name := range []string{"lib", job} {
		text, err := specification.ReadFile("specification/" + name + ".sh")
		require.NoError(t, err)
		script += string(text)
	}
	require.NoError(t, in.Report.Time("the commands for mode="+job, 0, func() error {
		return c.Shell(ctx, script, map[string]string{
			"CHARM": in.Charm, "MIRROR": in.Mirror.URL(), "FROM": in.From.Version, "TO": in.To.Version,
		}, func(line string) { t.Logf("    %s", line) })
	}))
	o := r.atRest("the commands for mode="+job, release.Version)
	r.login(o, release)
	r.buildOn("a build on every worker", workersOf(o.Status))
}
