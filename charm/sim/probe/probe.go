// Package probe is a charm that tells what real Juju does, as the history that sim.Accept
// judges. Its units note each hook in one file on a volume that they share, so that it
// outlives them.
package probe

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/pack"
)

// What a scenario has to do with on the machines.
const (
	// Notes is the file that all units write; Read reads it.
	Notes = volume + "/notes"
	// Hold is a file that keeps a hook from ending, while it is there: what the hook has
	// set is then not yet told to Juju.
	Hold = "/var/lib/probe-hold"
	// Fail is a file that has each hook fail at its end.
	Fail = "/var/lib/probe-fail"
	// Command has juju-exec run the charm.
	Command = "JUJU_DISPATCH_PATH=hooks/volume-changed ./dispatch"
)

// volume is where the shared volume is mounted.
const volume = "/var/lib/concourse"

const importPath = "github.com/concourse-ci-machine/concourse-ci-machine/charm/sim/probe"

// Pack writes the charm to the file out. It builds from source, so it works in any
// directory of this module.
func Pack(ctx context.Context, out string) error {
	dir, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", importPath).Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		return fmt.Errorf("cannot find the probe: %w", err)
	}
	return pack.Charm(ctx, pack.Spec{
		Dir:  strings.TrimSpace(string(dir)),
		Main: importPath + "/cmd/dispatch",
		Out:  out,
	})
}
