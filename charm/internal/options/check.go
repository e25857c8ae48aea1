package options

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// unless returns a sentence where something does not hold.
func unless(holds bool, format string, args ...any) string {
	if holds {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// oneOf is the check of an option that has a choice of values.
func oneOf(values ...string) func(Option, Config) string {
	return func(o Option, c Config) string {
		value := *o.field(&c).(*string)
		return unless(slices.Contains(values, value),
			"Unknown %[1]s %[2]q: set %[1]s to one of %[3]s", o.Name, value, strings.Join(values, ", "))
	}
}

// isURL tells whether Concourse and Go's clients take a text for an absolute URL. They take
// "localhost:8080" for one with the scheme localhost.
func isURL(text string, schemes ...string) bool {
	u, err := url.Parse(text)
	return err == nil && slices.Contains(schemes, u.Scheme) && u.Hostname() != ""
}

const tsaPort = 2222

// checkPort refuses the ports on which Concourse listens already: the TSA, and the
// debuggers of web server and TSA; of a worker beside it those of its runtime, its volume
// manager, their debuggers, and its health.
func checkPort(_ Option, c Config) string {
	taken := []int{tsaPort, 2221, 8079}
	if c.Mode == "all" {
		taken = append(taken, 7776, 7777, 7787, 7788, 8888)
	}
	const sentence = "Unusable web-port %d: set web-port to a free port between 1 and 65535 other than %d"
	if slices.Contains(taken, c.WebPort) {
		return fmt.Sprintf(sentence, c.WebPort, c.WebPort)
	}
	return unless(0 < c.WebPort && c.WebPort <= 65535, sentence, c.WebPort, tsaPort)
}
