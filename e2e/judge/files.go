package judge

import (
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var fileRules = []Rule{
	{Name: "one-file", Promise: "All units that run one download of a release run the same file of the volume.", Broken: differentFiles},
	{Name: "no-deleted-program", Promise: "No process runs from a release that was removed, or is being removed.", Broken: deletedPrograms},
}

// differentFiles compares the files that processes were started from, not their paths:
// a path may lead to a copy.
func differentFiles(r observation.Record) []string {
	if !r.Shared {
		return nil
	}
	var f findings
	for o := range resting(r) {
		type sight struct {
			unit string
			file observation.File
		}
		first := map[string]sight{} // by entry
		for unit, m := range machines(o) {
			if !active(o, unit) {
				continue
			}
			for s := range running(m) {
				e, inside, ok := entryOf(s.Executable)
				if !ok || inside != "bin/concourse" || s.File == (observation.File{}) {
					continue
				}
				if m.Mount.FileSystem != "" && s.File.FileSystem != m.Mount.FileSystem {
					f.add(o, unit, "%s runs a file of file system %s, and the volume is %s", s.Name, s.File.FileSystem, m.Mount.FileSystem)
				}
				other, seen := first[e.name]
				if !seen {
					first[e.name] = sight{unit, s.File}
				} else if other.file != s.File {
					f.add(o, unit, "%s runs inode %d of file system %s, and %s runs inode %d of %s, both as %s",
						s.Name, s.File.Inode, s.File.FileSystem, other.unit, other.file.Inode, other.file.FileSystem, s.Executable)
				}
			}
		}
	}
	return f
}

// deletedPrograms leaves out what builds run: their files come and go below worker/.
func deletedPrograms(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		for unit, m := range machines(o) {
			for _, p := range m.Processes {
				inside, ok := strings.CutPrefix(p.Executable, root+"/")
				switch {
				case !ok || strings.HasPrefix(inside, "worker/"):
				case p.Deleted:
					f.add(o, unit, "process %d runs from %s, which is deleted", p.PID, p.Executable)
				case strings.HasPrefix(inside, "staging/") || strings.HasPrefix(inside, "quarantine/"):
					f.add(o, unit, "process %d runs from %s, which is no release", p.PID, p.Executable)
				}
			}
		}
	}
	return f
}
