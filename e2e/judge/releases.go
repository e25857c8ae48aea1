package judge

import (
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// entry is one download of a release, as a unit has it pinned: "7.14.3.2" is the second
// one of 7.14.3. On a volume of the first layout there are no downloads, and the
// number is 0.
type entry struct {
	name    string
	version string
}

// entryOf finds the entry that a file of a release belongs to, and the file's path in
// it. The path must have no links in it. Of a process that still runs from a mount that
// was detached, the kernel knows the path below the volume only.
func entryOf(file string) (e entry, inside string, ok bool) {
	file = strings.TrimPrefix(file, root)
	if rest, found := strings.CutPrefix(file, "/releases/"); found {
		version, inside, _ := strings.Cut(rest, "/")
		return entry{version + ".0", version}, inside, version != ""
	}
	rest, found := strings.CutPrefix(file, "/store/")
	name, inside, _ := strings.Cut(rest, "/")
	return entry{name, versionOf(name)}, inside, found && versionOf(name) != ""
}

// versionOf returns the version of an entry by its name; it is empty for what is none.
func versionOf(name string) string {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return ""
	}
	if _, err := strconv.Atoi(name[dot+1:]); err != nil {
		return ""
	}
	return name[:dot]
}

// installedEntry is the entry that a release leads to.
func installedEntry(r coordinator.Release) string {
	e, _, _ := entryOf(path.Join(root, path.Base(path.Dir(r.Dir)), path.Base(r.Dir)))
	return e.name
}

// released finds a version among the releases of a volume.
func released(i coordinator.Inspection, version string) (coordinator.Release, bool) {
	for _, r := range i.Releases {
		if r.Version == version {
			return r, true
		}
	}
	return coordinator.Release{}, false
}

var inParentheses = regexp.MustCompile(`\(v([^()\s]+)\)`)

// versionIn finds the version that a status message names as the one that runs.
func versionIn(message string) string {
	if m := inParentheses.FindStringSubmatch(message); m != nil {
		return m[1]
	}
	return ""
}
