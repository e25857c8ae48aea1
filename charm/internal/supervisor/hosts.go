package supervisor

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// What is between these lines of the machine's file of host names is the charm's.
const (
	hostsBegin = "# concourse-ci-machine begin"
	hostsEnd   = "# concourse-ci-machine end"
)

// hostsSettle is how long the file has to stay as it was read before it is replaced.
const hostsSettle = 200 * time.Millisecond

// lookAtHosts reads which addresses the TSA's name means. Who manages the machine may write
// the file anew: what was there is asked for at each look.
func (s *Supervisor) lookAtHosts(seen *Seen) {
	if s.spec.TSA == "" {
		return
	}
	content, err := os.ReadFile(s.Hosts)
	if err == nil && withTSA(string(content), s.spec.TSA) == string(content) {
		seen.TSA = s.spec.TSA
	}
}

// writeHosts has the TSA's name mean addresses; none removes the name.
func writeHosts(path, addresses string) error {
	content, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("name the web server: %w", err)
	}
	wanted := withTSA(string(content), addresses)
	if wanted == string(content) {
		return nil
	}
	// Who writes it may have just emptied it.
	time.Sleep(hostsSettle)
	if again, err := os.ReadFile(path); err == nil && string(again) != string(content) {
		return fmt.Errorf("name the web server: somebody else writes %s", path)
	}
	mode := os.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	return concourse.WriteFile(path, wanted, mode)
}

// withTSA returns the content of such a file in which the name means the addresses.
func withTSA(content, addresses string) string {
	before, rest, _ := strings.Cut(content, hostsBegin+"\n")
	_, after, ended := strings.Cut(rest, hostsEnd+"\n")
	for line := range strings.Lines(rest) { // where somebody has taken out the end, the rest is theirs
		if !ended && !strings.HasSuffix(strings.TrimSpace(line), " "+concourse.TSAName) {
			after += line
		}
	}
	if before != "" && !strings.HasSuffix(before, "\n") {
		before += "\n"
	}
	if addresses == "" {
		return before + after
	}
	before += hostsBegin + "\n"
	for _, address := range strings.Fields(addresses) {
		before += address + " " + concourse.TSAName + "\n"
	}
	return before + hostsEnd + "\n" + after
}
