package options

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Environment returns the variables that a process of a role gets of the options: a line
// NAME=VALUE each. An option that has its default is absent.
func (c Config) Environment(role Role) string {
	var lines []string
	for _, o := range Table() {
		value := o.text(c)
		if o.handedOn() && o.Role.includes(role) && value != "" && value != o.DefaultText() {
			lines = append(lines, o.Variable+"="+value)
		}
	}
	extra, _ := parseExtra(c.ExtraEnv)
	return strings.Join(append(lines, extra...), "\n")
}

// Known returns the variables in such lines that a release knows, and the names of the
// options that it does not. The empty version knows all.
func Known(lines, version string) (variables map[string]string, unknown []string) {
	return known(Table(), lines, version)
}

func known(table []Option, lines, version string) (variables map[string]string, unknown []string) {
	variables = map[string]string{}
	for line := range strings.Lines(lines) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		row := slices.IndexFunc(table, func(o Option) bool { return o.Variable == name })
		if row >= 0 && version != "" && older(version, table[row].Since) {
			unknown = append(unknown, table[row].Name)
			continue
		}
		variables[name] = value
	}
	return variables, unknown
}

// Secrets returns the values in such lines that no message shows.
func Secrets(lines string) (secrets []string) {
	table := Table()
	variables, _ := known(table, lines, "")
	for name, value := range variables {
		row := slices.IndexFunc(table, func(o Option) bool { return o.Variable == name })
		if row < 0 || table[row].Secret { // any of extra-env may be one
			secrets = append(secrets, value)
		}
	}
	return secrets
}

// older compares releases, such as 7.6.0 and 7.14.2.
func older(version, than string) bool {
	numbers := func(version string) (all []int) {
		for part := range strings.SplitSeq(version, ".") {
			n, _ := strconv.Atoi(part)
			all = append(all, n)
		}
		return all
	}
	return slices.Compare(numbers(version), numbers(than)) < 0
}

var variable = regexp.MustCompile(`(?:^|[,\s]+)[A-Za-z_][A-Za-z0-9_]*=`)

// parseExtra returns the variables of extra-env as lines NAME=VALUE. In a text of several
// lines each is one variable. In one line a comma or a space ends a value only where the
// next name follows.
func parseExtra(text string) (lines []string, ok bool) {
	text = strings.TrimSpace(text)
	if strings.Contains(text, "\n") {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			if at := variable.FindStringIndex(line); at == nil || at[0] != 0 {
				return nil, false
			}
			lines = append(lines, line)
		}
		return lines, true
	}
	starts := variable.FindAllStringIndex(text, -1)
	for i, start := range starts {
		end := len(text)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		lines = append(lines, strings.Trim(text[start[0]:end], ", \t"))
	}
	return lines, text == "" || len(starts) > 0 && starts[0][0] == 0
}

// owned are the variables, beside those of the table, that the charm itself sets.
var owned = []string{
	"PATH", "CONCOURSE_NAME", "CONCOURSE_RESOURCE_TYPES", "CONCOURSE_RUNTIME", "CONCOURSE_CERTS_DIR",
	"CONCOURSE_CONTAINERD_BIN", "CONCOURSE_CONTAINERD_INIT_BIN", "CONCOURSE_CONTAINERD_CNI_PLUGINS_DIR",
	"CONCOURSE_HEALTHCHECK_BIND_IP", "CONCOURSE_HEALTHCHECK_BIND_PORT",
	"CONCOURSE_TSA_HOST", "CONCOURSE_TSA_PUBLIC_KEY", "CONCOURSE_TSA_WORKER_PRIVATE_KEY", "CONCOURSE_TSA_BIND_PORT",
	"CONCOURSE_TSA_HOST_KEY", "CONCOURSE_TSA_AUTHORIZED_KEYS", "CONCOURSE_TSA_LOG_LEVEL",
	"CONCOURSE_PEER_ADDRESS", "CONCOURSE_SESSION_SIGNING_KEY", "CONCOURSE_ADD_LOCAL_USER",
	"CONCOURSE_POSTGRES_HOST", "CONCOURSE_POSTGRES_PORT", "CONCOURSE_POSTGRES_DATABASE",
	"CONCOURSE_POSTGRES_USER", "CONCOURSE_POSTGRES_PASSWORD", "CONCOURSE_POSTGRES_SSLMODE",
}

// Owns tells whether a variable is the charm's, or an option's. Go's clients prefer
// HTTP_PROXY to http_proxy. A worker that runs containerd refuses to start with a setting of
// another runtime, CONCOURSE_GARDEN_.
func Owns(name string) bool {
	return slices.Contains(owned, name) || strings.HasPrefix(name, "CONCOURSE_GARDEN_") ||
		slices.ContainsFunc(Table(), func(o Option) bool { return o.Variable != "" && strings.EqualFold(o.Variable, name) })
}
