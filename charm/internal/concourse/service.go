package concourse

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
)

// Service is a systemd unit with the files that its processes read.
type Service struct {
	Unit        string // name, such as ServerUnit
	Description string
	Process     string // the section [Service] of the unit file
	Files       []File
	// Unknown are the options that the version does not know, and does not get.
	Unknown []string
}

// File is what a service reads. It is readable by its owner only.
type File struct {
	Path    string
	Content string
	Owner   string // a user; empty is root
	// Reloaded is set for a file that a running process reads anew when it is told to.
	// A process that has read any other file has to be restarted for a new content.
	Reloaded bool
}

// serviceSection begins the part of a unit file that says how the process runs.
const serviceSection = "[Service]\n"

// Definition is the unit file. It has no section [Install]: systemd starts the service
// at no boot, since a unit that was off may have missed an upgrade of the schema.
func (s Service) Definition() string {
	return "[Unit]\nDescription=" + s.Description + "\nStartLimitIntervalSec=0\n\n" + serviceSection + s.Process
}

// RestartDigest changes whenever the process has to be restarted to be as described.
func (s Service) RestartDigest() string { return s.digest(s.Process, false) }

// ReloadDigest changes whenever the process has to read its files anew.
func (s Service) ReloadDigest() string { return s.digest("", true) }

func (s Service) digest(process string, reloaded bool) string {
	parts := []string{process}
	for _, f := range s.Files {
		if f.Reloaded == reloaded {
			parts = append(parts, f.Path, f.Content)
		}
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}

// newService builds the service from what both have in common, and the options that are
// handed on (see options.Config.Environment). The executable is on the
// volume: a service whose volume is away cannot start, and so cannot write into the
// directory underneath.
func newService(p Paths, unit, description, version, command string, env map[string]string, given, extra string, files ...File) Service {
	variables, unknown := options.Known(given, version)
	maps.Copy(env, variables)
	return Service{
		Unit:        unit,
		Description: description + " " + version,
		Process:     process(p, unit, version, command) + "Restart=on-failure\nRestartSec=5\nLimitNOFILE=1048576\n" + extra,
		Files:       append([]File{{Path: p.Environment(unit), Content: environment(env)}}, files...),
		Unknown:     unknown,
	}
}

// process runs a command of a version in the environment of a unit.
func process(p Paths, unit, version, command string) string {
	release := p.Release(version)
	return "EnvironmentFile=" + p.Environment(unit) + "\n" +
		"Environment=PATH=" + release + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n" +
		"ExecStart=" + release + "/bin/concourse " + command + "\n"
}

// quote escapes the four characters that double quotes do not keep.
var quote = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`)

// environment renders what systemd reads with EnvironmentFile=.
func environment(env map[string]string) string {
	lines := make([]string, 0, len(env))
	for name, value := range env {
		lines = append(lines, name+`="`+quote.Replace(value)+"\"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// Environment is the file with the environment of a service.
func (p Paths) Environment(unit string) string {
	return filepath.Join(p.State, strings.TrimSuffix(unit, ".service")+".env")
}
