package judge

import (
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var programRules = []Rule{
	{Name: "runs-what-it-says", Promise: "Every service runs the release that its unit says, and that all units should.", Broken: wrongPrograms},
	{
		Name: "runs-its-role", Promise: "A unit that says it is ready runs the service of its role, and no other.", Broken: wrongRoles,
		Recovers: "systemd starts what was killed, and what a machine has lost, while its unit says what it said.",
	},
	{Name: "own-directory", Promise: "Each worker keeps its state in its own directory on the volume.", Broken: wrongDirectories},
}

// wrongPrograms looks at what each process executes. A service that goes on while its
// unit is blocked may be without its volume: its program has no path any more.
func wrongPrograms(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		for unit, m := range machines(o) {
			u, _ := o.Status.Unit(unit)
			if !active(o, unit) && (o.Expected == "" || !m.Mount.Mounted) {
				continue
			}
			for s := range running(m) {
				if s.Executable == "" {
					continue
				}
				e, inside, ok := entryOf(s.Executable)
				said := versionIn(u.Message)
				switch {
				case !ok || inside != "bin/concourse":
					f.add(o, unit, "%s runs %s, and must run %s/store/VERSION.N/bin/concourse", s.Name, s.Executable, root)
				case active(o, unit) && said != "" && said != e.version:
					f.add(o, unit, "%s runs %s, and the status says %q", s.Name, s.Executable, u.Message)
				case o.Expected != "" && o.Expected != e.version:
					f.add(o, unit, "%s runs %s, and must run %s", s.Name, s.Executable, o.Expected)
				}
			}
		}
	}
	return f
}

// roles are how messages of active units begin, and what they promise.
var roles = []struct {
	message        string
	server, worker bool
}{
	{"Web server ready", true, false},
	{"Worker ready", false, true},
	{"Ready", true, true},
}

// landing ends the message of a unit that has become the web server, whose worker still
// has builds.
const landing = "the unit's worker ends with its builds"

func wrongRoles(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		for unit, m := range machines(o) {
			u, _ := o.Status.Unit(unit)
			for _, role := range roles {
				if !active(o, unit) || !strings.HasPrefix(u.Message, role.message) {
					continue
				}
				for _, name := range []string{server, worker} {
					must := name == server && role.server || name == worker && role.worker
					may := must || name == worker && strings.HasSuffix(u.Message, landing)
					if _, does := runs(m, name); must && !does {
						f.add(o, unit, "says %q, and %s does not run", u.Message, name)
					} else if does && !may {
						f.add(o, unit, "says %q, and still runs %s", u.Message, name)
					}
				}
			}
		}
	}
	return f
}

func wrongDirectories(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		for unit, m := range machines(o) {
			own := root + "/worker/" + dashed(unit)
			if s, ok := runs(m, worker); ok && s.Directory != "" && s.Directory != own {
				f.add(o, unit, "its worker keeps its state in %s, and must in %s", s.Directory, own)
			}
		}
	}
	return f
}
