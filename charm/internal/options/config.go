package options

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
)

// Config has the values of the options. Each field belongs to one row of Table.
type Config struct {
	Mode                 string
	Version              string
	ReleaseURL           string
	ReleaseDigest        string
	SharedStorage        string
	WebPort              int
	ExternalURL          string
	InitialAdminUsername string
	LogLevel             string

	HTTPProxy, HTTPSProxy, NoProxy string
	ContainerdDNSServer            string
	ContainerdDNSProxyEnable       bool
	Tag                            string
	BaggageclaimDriver             string
	WorkerWorkDir                  string
	DrainTimeout                   time.Duration
	MaxUnavailable                 int
	ExtraEnv                       string

	malformed map[string]string // texts of options that are no value of their field, by name
}

// Default is what operators have who set nothing.
func Default() Config {
	var c Config
	for _, o := range Table() {
		reflect.ValueOf(o.field(&c)).Elem().Set(reflect.ValueOf(o.Default))
	}
	return c
}

// UnmarshalJSON reads what Juju's config-get prints: values by the names of options. What is
// missing has its default.
func (c *Config) UnmarshalJSON(data []byte) error {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(data, &given); err != nil {
		return err
	}
	*c = Default()
	for _, o := range Table() {
		value, ok := given[o.Name]
		if !ok {
			continue
		}
		if err := c.read(o, value); err != nil {
			return fmt.Errorf("option %s: %w", o.Name, err)
		}
	}
	return nil
}

func (c *Config) read(o Option, value json.RawMessage) error {
	duration, ok := o.field(c).(*time.Duration)
	if !ok {
		return json.Unmarshal(value, o.field(c))
	}
	var text string
	if err := json.Unmarshal(value, &text); err != nil || text == "" {
		return err
	}
	parsed, err := time.ParseDuration(text)
	if err != nil || parsed < 0 {
		if c.malformed == nil {
			c.malformed = map[string]string{}
		}
		c.malformed[o.Name] = text
		return nil
	}
	*duration = parsed
	return nil
}

// Shared tells whether the volume has to be one that others mount as well.
func (c Config) Shared() bool { return c.SharedStorage == "lxc" }

// Source is where releases come from.
func (c Config) Source() string { return cmp.Or(c.ReleaseURL, product.Source) }
