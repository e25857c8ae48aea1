package certify

import (
	"os"
	"strings"
)

// mountOf says for people what is mounted where a path is: the kind of file system, the
// device or server, and the options. It asks the kernel and not the mount.
func mountOf(path string) string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	return mountIn(string(table), path)
}

// mountIn reads a table as proc(5) describes it. Of two mounts on one place the later one
// is on top.
func mountIn(table, path string) (mount string) {
	var at string
	for line := range strings.Lines(table) {
		left, right, ok := strings.Cut(line, " - ")
		about, what := strings.Fields(left), strings.Fields(right)
		if !ok || len(about) < 6 || len(what) < 3 {
			continue
		}
		point := unescape.Replace(about[4])
		if len(point) < len(at) || path != point && !strings.HasPrefix(path, strings.TrimSuffix(point, "/")+"/") {
			continue
		}
		at = point
		mount = strings.Join([]string{what[0], unescape.Replace(what[1]), about[5], what[2]}, " ")
	}
	return mount
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
