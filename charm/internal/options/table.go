package options

import (
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
)

// Table returns all options.
func Table() []Option {
	return []Option{{
		Name: "mode", Default: "auto", Role: Charm,
		field: func(c *Config) any { return &c.Mode },
		check: oneOf("auto", "web", "all"),
		Doc: `What the units do. "auto": one unit, the leader at first, is the web server, all others are workers. ` +
			`"web": every unit is a web server. "all": every unit is both.`,
	}, {
		Name: "version", Default: "", Role: Charm,
		field: func(c *Config) any { return &c.Version },
		// Package plan goes on with the version that was there before.
		Doc: `Concourse version to run, such as 7.14.3. Empty takes the newest one when the ` +
			`application is deployed, and keeps it until it is upgraded. The option and the action ` +
			`"upgrade" are equal: the one used last wins.`,
	}, {
		Name: "release-url", Default: product.Source, Role: Charm,
		field: func(c *Config) any { return &c.ReleaseURL },
		check: func(_ Option, c Config) string {
			return unless(isURL(c.Source(), "http", "https"), "Malformed release-url %q: use the form %s", c.ReleaseURL, product.Source)
		},
		Doc: `Repository that releases come from: GitHub, GitHub Enterprise, or any server that has ` +
			`the archives under the same paths.`,
	}, {
		Name: "release-digest", Default: "", Role: Charm,
		field: func(c *Config) any { return &c.ReleaseDigest },
		check: func(_ Option, c Config) string {
			return unless(c.ReleaseDigest == "" || digestForm.MatchString(c.ReleaseDigest),
				"Malformed release-digest %q: use the form sha256:HEX", c.ReleaseDigest)
		},
		Doc: `Digest of the release archive, as sha256:HEX. Empty takes the one that the repository ` +
			`keeps beside the archive. Set it together with version.`,
	}, {
		Name: "shared-storage", Default: "none", Role: Charm,
		field: func(c *Config) any { return &c.SharedStorage },
		check: oneOf("none", "lxc"),
		Doc: `Where the release is kept. "none": each unit keeps it on its own disk. "lxc": a ` +
			`volume attached to all units at /var/lib/concourse holds it once; units wait until it is ` +
			`attached and carries the file .lxc_shared_storage.`,
	}, {
		Name: "web-port", Default: 8080, Role: Web, Variable: "CONCOURSE_BIND_PORT", Derived: true,
		field: func(c *Config) any { return &c.WebPort },
		check: checkPort,
		Doc:   `TCP port of the web server.`,
	}, {
		Name: "external-url", Default: "", Role: Web, Variable: "CONCOURSE_EXTERNAL_URL", Derived: true,
		field: func(c *Config) any { return &c.ExternalURL },
		check: func(_ Option, c Config) string {
			return unless(c.ExternalURL == "" || isURL(c.ExternalURL, "http", "https"),
				"Malformed external-url %q: use the form https://ci.example.com", c.ExternalURL)
		},
		Doc: `URL under which users reach the web server. Empty takes the address of the unit and ` +
			`web-port.`,
	}, {
		Name: "initial-admin-username", Default: "admin", Role: Web, Variable: "CONCOURSE_MAIN_TEAM_LOCAL_USER", Derived: true,
		field: func(c *Config) any { return &c.InitialAdminUsername },
		check: func(_ Option, c Config) string {
			return unless(adminForm.MatchString(c.InitialAdminUsername),
				"Unusable initial-admin-username %q: use letters, digits, dots, dashes and @", c.InitialAdminUsername)
		},
		Doc: `Local user that owns the main team. Its password is made by the charm; see the action ` +
			`get-admin-password.`,
	}, {
		Name: "log-level", Default: "info", Role: Both, Variable: "CONCOURSE_LOG_LEVEL", Derived: true,
		field: func(c *Config) any { return &c.LogLevel },
		check: oneOf("debug", "info", "error", "fatal"),
		Doc:   `What Concourse logs; one of debug, info, error, fatal.`,
	}, {
		Name: "http-proxy", Default: "", Role: Both, Variable: "http_proxy", Secret: true,
		field: func(c *Config) any { return &c.HTTPProxy },
		check: checkProxy,
		Doc: `Proxy for HTTP, such as http://proxy.example.com:3128. Downloads of releases, the web ` +
			`server, workers and the containers of builds use it. Empty takes juju-http-proxy of the ` +
			`model, if it has one.`,
	}, {
		Name: "https-proxy", Default: "", Role: Both, Variable: "https_proxy", Secret: true,
		field: func(c *Config) any { return &c.HTTPSProxy },
		check: checkProxy,
		Doc: `Proxy for HTTPS, which may be the same as http-proxy. Empty takes juju-https-proxy of ` +
			`the model.`,
	}, {
		Name: "no-proxy", Default: "", Role: Both, Variable: "no_proxy", List: true,
		field: func(c *Config) any { return &c.NoProxy },
		check: eachItem(func(item string) bool { return !strings.ContainsAny(item, " \t\n") && !strings.Contains(item, "://") },
			"Malformed no-proxy %q: use hosts, domains and networks with commas between them"),
		Doc: `Hosts, domains and networks that are reached without a proxy, with commas between them; ` +
			`"*" are all of them. Empty takes juju-no-proxy of the model. It counts where there is a ` +
			`proxy. The web server also reaches its own unit without one.`,
	}, {
		Name: "containerd-dns-server", Default: "", Role: Worker, Variable: "CONCOURSE_CONTAINERD_DNS_SERVER", List: true,
		field: func(c *Config) any { return &c.ContainerdDNSServer },
		check: eachItem(func(item string) bool {
			address, err := netip.ParseAddr(item)
			return err == nil && address.Zone() == "" && !address.IsLoopback()
		}, "Unusable containerd-dns-server %q: use IP addresses that containers reach, with commas between them"),
		Doc: `Addresses of the name servers for the containers of builds, with commas between them. ` +
			`Empty takes those of the machine; where the machine names only a stub of its own, which ` +
			`containers cannot reach, those that systemd-resolved asks.`,
	}, {
		Name: "containerd-dns-proxy-enable", Default: false, Role: Worker, Variable: "CONCOURSE_CONTAINERD_DNS_PROXY_ENABLE",
		field: func(c *Config) any { return &c.ContainerdDNSProxyEnable },
		Doc: `Whether the worker is the name server of its containers, and asks those of the machine. ` +
			`Port 53 of the machine must be free for it, which it is not where systemd-resolved has its ` +
			`stub. Containers can then reach the machine.`,
	}, {
		Name: "tag", Default: "", Role: Worker, Variable: "CONCOURSE_TAG", List: true,
		field: func(c *Config) any { return &c.Tag },
		check: eachItem(func(item string) bool { return !strings.ContainsAny(item, " \t\n") },
			"Malformed tag %q: use tags without spaces, with commas between them"),
		Doc: `Tags of the workers, with commas between them. A worker with tags runs only steps that ` +
			`name one of them.`,
	}, {
		Name: "baggageclaim-driver", Default: "naive", Role: Worker, Variable: "CONCOURSE_BAGGAGECLAIM_DRIVER",
		field: func(c *Config) any { return &c.BaggageclaimDriver },
		check: oneOf("naive", "overlay", "btrfs", "detect"),
		Doc: `How workers keep volumes: naive, overlay, btrfs, or detect. "naive" copies, which works ` +
			`on every file system and in every container; the others are faster where the machine ` +
			`lets them mount. Volumes that were made with another driver are of no use to the new one.`,
	}, {
		Name: "worker-work-dir", Default: "", Role: Worker, Variable: "CONCOURSE_WORK_DIR", Derived: true,
		field: func(c *Config) any { return &c.WorkerWorkDir },
		check: checkWorkDir,
		Doc: `Directory on each unit's own machine, such as /mnt/fast on a fast disk, below which its ` +
			`worker keeps its state. The charm makes APP-N in it, and removes that when it is not used ` +
			`any more. Empty keeps the state on the volume, in worker/APP-N. A change starts workers ` +
			`anew without what they had; builds may fail for want of it for the minutes in which the ` +
			`web server has not noticed.`,
	}, {
		Name: "drain-timeout", Default: time.Hour, Role: Charm,
		field: func(c *Config) any { return &c.DrainTimeout },
		check: func(o Option, c Config) string {
			given, malformed := c.malformed[o.Name]
			return unless(!malformed, "Malformed drain-timeout %q: use the form 30m or 1h30m", given)
		},
		Doc: `How long a worker that has to stop may go on with its builds, such as 30m or 1h30m. ` +
			`With 0s it stops at once.`,
	}, {
		Name: "max-unavailable", Default: 1, Role: Charm,
		field: func(c *Config) any { return &c.MaxUnavailable },
		check: func(_ Option, c Config) string {
			return unless(c.MaxUnavailable >= 1, "Unusable max-unavailable %d: set max-unavailable to 1 or more", c.MaxUnavailable)
		},
		Doc: `How many workers at most end with their builds at the same time, to start on another ` +
			`version or with other options. The others go on meanwhile.`,
	}, {
		Name: "extra-env", Default: "", Role: Both, Secret: true,
		field: func(c *Config) any { return &c.ExtraEnv },
		check: checkExtra,
		Doc: `More variables for the web server and the worker, as NAME=VALUE: one a line, or in one ` +
			`line with commas or spaces between them. Values are taken as they are, without quotes. ` +
			`Variables that the charm or another option sets are refused.`,
	}}
}

var (
	adminForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]*$`)
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)
