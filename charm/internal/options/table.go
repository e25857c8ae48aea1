package options

import (
	"regexp"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
)

// Table has all options.
var Table = []Option{{
	Name: "mode", Default: "auto", Role: Charm,
	field: func(c *Config) any { return &c.Mode },
	check: oneOf("auto", "web", "all"),
	Doc: `What the units do. "auto": the leader is the web server, all others are workers. ` +
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
}}

var (
	adminForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]*$`)
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)
