package plan_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
)

// A change of an option restarts the processes that read it, and no other; of their
// variables it changes its own.
func TestWhoReadsAnOption(t *testing.T) {
	changes := map[string]func(*plan.Config){
		"web-port":                    func(c *plan.Config) { c.WebPort = 80 },
		"external-url":                func(c *plan.Config) { c.ExternalURL = "https://ci.example.com" },
		"initial-admin-username":      func(c *plan.Config) { c.InitialAdminUsername = "root" },
		"log-level":                   func(c *plan.Config) { c.LogLevel = "debug" },
		"http-proxy":                  func(c *plan.Config) { c.HTTPProxy = "http://proxy:3128" },
		"https-proxy":                 func(c *plan.Config) { c.HTTPSProxy = "http://proxy:3128" },
		"no-proxy":                    func(c *plan.Config) { c.NoProxy = "example.com" }, // beside a proxy
		"containerd-dns-server":       func(c *plan.Config) { c.ContainerdDNSServer = "10.0.0.2" },
		"containerd-dns-proxy-enable": func(c *plan.Config) { c.ContainerdDNSProxyEnable = true },
		"tag":                         func(c *plan.Config) { c.Tag = "gpu" },
		"baggageclaim-driver":         func(c *plan.Config) { c.BaggageclaimDriver = "overlay" },
		"worker-work-dir":             func(c *plan.Config) { c.WorkerWorkDir = "/mnt/fast" },
		"extra-env":                   func(c *plan.Config) { c.ExtraEnv = "CONCOURSE_ENABLE_ACROSS_STEP=true" },
		"drain-timeout":               func(c *plan.Config) { c.DrainTimeout = time.Minute },
	}
	for _, o := range options.Table() {
		change := changes[o.Name]
		if o.Role == options.Charm && change == nil {
			continue // what these do is in TestMake
		}
		require.NotNil(t, change, "%s has no case", o.Name)
		t.Run(o.Name, func(t *testing.T) {
			for _, role := range []struct {
				unit  unit
				reads []options.Role
				steps string
			}{
				{leader(), []options.Role{options.Web, options.Both}, "start server 7.14.2"},
				{follower(), []options.Role{options.Worker, options.Both}, "start worker 7.14.2"},
			} {
				u := role.unit
				if o.Name == "no-proxy" {
					u.in.Config.HTTPProxy = "http://proxy:3128"
					u.settle()
				}
				before := variables(u)
				change(&u.in.Config)
				want := ""
				if slices.Contains(role.reads, o.Role) {
					want = role.steps
				}
				require.Equal(t, want, u.obey(plan.Make(u.in)))
				changed := difference(before, variables(u))
				if want == "" {
					require.Empty(t, changed)
				} else if o.Variable != "" && !o.Derived {
					require.Contains(t, changed, o.Variable)
				}
			}
		})
	}
}

// variables are those of the services of a unit.
func variables(u unit) (lines []string) {
	if web := u.in.Before.Web; web != nil {
		lines = append(lines, strings.Split(web.Service(concourse.Paths{}, old).Files[0].Content, "\n")...)
	}
	if worker := u.in.Before.Worker; worker != nil {
		lines = append(lines, strings.Split(worker.Service(concourse.Paths{}, old).Files[0].Content, "\n")...)
	}
	return lines
}

// difference names what differs.
func difference(before, after []string) (names []string) {
	for _, pair := range [][2][]string{{before, after}, {after, before}} {
		for _, line := range pair[0] {
			if !slices.Contains(pair[1], line) {
				name, _, _ := strings.Cut(line, "=")
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// The model's proxies stand in for those that are not set. The web server reaches its own
// unit without them, where the TSA asks workers for their health.
func TestProxies(t *testing.T) {
	all := leader(config(func(c *plan.Config) { c.Mode, c.HTTPSProxy = "all", "http://user:s3cret@other:3128" }), (*unit).settle)
	all.in.Juju.Proxies = options.Proxies{HTTP: "proxy:3128", HTTPS: "http://proxy:3128", No: "localhost, 10.0.0.0/8"}
	answer := plan.Make(all.in)
	want := options.Proxies{HTTP: "http://proxy:3128", HTTPS: "http://user:s3cret@other:3128", No: "localhost,10.0.0.0/8"}
	require.Equal(t, want, answer.Spec.Proxies)
	require.NotContains(t, answer.Changes.Status.Message, "s3cret")
	for _, given := range []struct{ options, noProxy string }{
		{answer.Spec.Web.Options, "localhost,10.0.0.0/8,10.0.0.1"},
		{answer.Spec.Worker.Options, "localhost,10.0.0.0/8"},
	} {
		variables, _ := options.Known(given.options, old)
		require.Equal(t, map[string]string{"http_proxy": want.HTTP, "https_proxy": want.HTTPS, "no_proxy": given.noProxy}, variables)
	}

	// Every model has a juju-no-proxy.
	u := leader()
	u.in.Juju.Proxies.No = "127.0.0.1,localhost,::1"
	require.Empty(t, u.obey(plan.Make(u.in)), "nothing is started anew")
	require.Empty(t, u.in.Before.Proxies)

	u.in.Juju.Proxies.HTTP = "ftp://user:s3cret@proxy"
	answer = plan.Make(u.in)
	require.Nil(t, answer.Spec, "what runs goes on")
	require.Equal(t, "Malformed http-proxy: set http-proxy, or juju-http-proxy of the model, to the form http://proxy.example.com:3128",
		answer.Changes.Status.Message)
}
