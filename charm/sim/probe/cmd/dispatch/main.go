// Dispatch is what Juju runs for every hook and action of the probe, and juju-exec for a
// command.
package main

import (
	"fmt"
	"os"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/sim/probe"
)

func main() {
	if err := probe.Dispatch(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
