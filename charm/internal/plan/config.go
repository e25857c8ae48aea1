package plan

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
)

// Config is the charm's configuration, named as its users know it.
type Config struct {
	Mode                 string `json:"mode"`
	Version              string `json:"version"`
	ReleaseURL           string `json:"release-url"`
	ReleaseDigest        string `json:"release-digest"`
	SharedStorage        string `json:"shared-storage"`
	WebPort              int    `json:"web-port"`
	ExternalURL          string `json:"external-url"`
	InitialAdminUsername string `json:"initial-admin-username"`
	LogLevel             string `json:"log-level"`
}

// shared tells whether the volume has to be one that others mount as well.
func (c Config) shared() bool { return c.SharedStorage == "lxc" }

// source is where releases come from.
func (c Config) source() string { return cmp.Or(c.ReleaseURL, product.Source) }

var (
	adminForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]*$`)
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// checkOptions complains of options that cannot be meant.
func (m *maker) checkOptions() {
	c := m.Config
	switch {
	case !slices.Contains([]string{"auto", "web", "all"}, c.Mode):
		m.say(unknownMode, c.Mode)
	case c.SharedStorage != "none" && c.SharedStorage != "lxc":
		m.say(unknownStorage, c.SharedStorage)
	case c.WebPort < 1 || c.WebPort > 65535 || c.WebPort == concourse.TSAPort:
		m.say(unusablePort, c.WebPort, concourse.TSAPort)
	case !adminForm.MatchString(c.InitialAdminUsername):
		m.say(unusableAdmin, c.InitialAdminUsername)
	case !slices.Contains([]string{"debug", "info", "error", "fatal"}, c.LogLevel):
		m.say(unknownLogLevel, c.LogLevel)
	case c.ReleaseDigest != "" && !digestForm.MatchString(c.ReleaseDigest):
		m.say(malformedDigest, c.ReleaseDigest)
	case !strings.HasPrefix(c.source(), "http://") && !strings.HasPrefix(c.source(), "https://"):
		m.say(malformedURL, c.ReleaseURL, product.Source)
	}
}
