package options

import (
	"cmp"
	"strings"
)

// Proxies are how requests leave the machine, as Go's clients and Concourse read them.
type Proxies struct {
	HTTP  string `json:"http,omitempty"`
	HTTPS string `json:"https,omitempty"`
	No    string `json:"no,omitempty"` // what is reached without one, with commas between them
}

// Proxies returns those of the options.
func (c Config) Proxies() Proxies { return Proxies{c.HTTPProxy, c.HTTPSProxy, c.NoProxy} }

// WithModel fills in the model's proxies where no option is set. Like Go and curl it takes
// "proxy:3128" for a URL. Without a proxy there is nothing to except from it: every model
// names hosts for that.
func (c Config) WithModel(model Proxies) Config {
	c.HTTPProxy, c.HTTPSProxy = proxyURL(c.HTTPProxy, model.HTTP), proxyURL(c.HTTPSProxy, model.HTTPS)
	c.NoProxy = cmp.Or(strings.Join(items(c.NoProxy), ","), strings.Join(items(model.No), ","))
	if c.HTTPProxy == "" && c.HTTPSProxy == "" {
		c.NoProxy = ""
	}
	return c
}

// Except adds a host that is reached without a proxy.
func (c Config) Except(host string) Config {
	if c.NoProxy != "" {
		host = c.NoProxy + "," + host
	}
	if c.HTTPProxy != "" || c.HTTPSProxy != "" {
		c.NoProxy = host
	}
	return c
}

func proxyURL(option, model string) string {
	text := cmp.Or(strings.TrimSpace(option), strings.TrimSpace(model))
	if text != "" && !strings.Contains(text, "://") {
		return "http://" + text
	}
	return text
}
