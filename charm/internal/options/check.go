package options

import (
	"fmt"
	"net/url"
	"regexp"
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
		return unless(slices.Contains(values, value) || o.handedOn() && value == "",
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
	if c.Mode != "web" { // in mode auto a unit that takes over runs both
		taken = append(taken, 7776, 7777, 7787, 7788, 8888)
	}
	const sentence = "Unusable web-port %d: set web-port to a free port between 1 and 65535 other than %d"
	if slices.Contains(taken, c.WebPort) {
		return fmt.Sprintf(sentence, c.WebPort, c.WebPort)
	}
	return unless(0 < c.WebPort && c.WebPort <= 65535, sentence, c.WebPort, tsaPort)
}

// eachItem is the check of a list.
func eachItem(fits func(item string) bool, sentence string) func(Option, Config) string {
	return func(o Option, c Config) string {
		value := *o.field(&c).(*string)
		misfit := func(item string) bool { return !fits(item) }
		return unless(!slices.ContainsFunc(items(value), misfit), sentence, value)
	}
}

// checkProxy does not show what is wrong, as there may be a password in it.
func checkProxy(o Option, c Config) string {
	value := o.text(c)
	return unless(value == "" || isURL(value, "http", "https", "socks5"),
		"Malformed %[1]s: set %[1]s, or juju-%[1]s of the model, to the form http://proxy.example.com:3128", o.Name)
}

// workDirForm matches absolute paths in their shortest form, of names that mean nothing to
// a mount, a shell or systemd.
var workDirForm = regexp.MustCompile(`^(/[A-Za-z0-9_@+-][A-Za-z0-9_@+.-]*)+$`)

// systemDirs are the directories that belong to the system with all that is in them, or
// that it empties, and those of the charm.
var systemDirs = []string{
	"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/lost+found", "/proc", "/root", "/run", "/sbin",
	"/snap", "/sys", "/tmp", "/usr", "/var/cache", "/var/lib/dpkg", "/var/lib/juju", "/var/lib/systemd", "/var/lock",
	"/var/log", "/var/run", "/var/snap", "/var/spool", "/var/tmp", "/var/lib/concourse", "/var/lib/concourse-ci-machine",
}

// checkWorkDir refuses what has a system directory in it, too.
func checkWorkDir(_ Option, c Config) string {
	within := func(dir, of string) bool { return dir == of || strings.HasPrefix(dir, of+"/") }
	taken := func(of string) bool { return within(c.WorkerWorkDir, of) || within(of, c.WorkerWorkDir) }
	return unless(c.WorkerWorkDir == "" || workDirForm.MatchString(c.WorkerWorkDir) && !slices.ContainsFunc(systemDirs, taken),
		"Unusable worker-work-dir %q: use an absolute path such as /mnt/fast, of plain names, "+
			"outside of the system's directories and of /var/lib/concourse", c.WorkerWorkDir)
}

// checkExtra shows no values, as there may be a password among them.
func checkExtra(_ Option, c Config) string {
	lines, ok := parseExtra(c.ExtraEnv)
	if !ok {
		return "Malformed extra-env: use the form NAME=VALUE, one a line"
	}
	var taken []string
	for _, line := range lines {
		if name, _, _ := strings.Cut(line, "="); Owns(name) {
			taken = append(taken, name)
		}
	}
	return unless(len(taken) == 0, "Unusable extra-env: take out %s, which the charm or another option sets", strings.Join(taken, ", "))
}
