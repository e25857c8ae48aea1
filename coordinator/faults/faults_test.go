// Package faults shows that a release is installed exactly once, or not at all,
// on file systems that lie, fill up, lose power or vanish. It uses the public
// face of coordinator only, from processes of its own.
//
// Most of it mounts something. Where that is not possible the tests skip, unless
// it is required: see package needs.
package faults

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// Versions that the tests install; older is there before, where anything is.
const (
	older = "7.14.2"
	newer = "7.14.3"
)

// concourse is a product in GitHub's layout.
var concourse = coordinator.Product{
	Name: "Concourse",
	Archive: func(version, arch string) string {
		return "releases/download/v" + version + "/concourse-" + version + "-linux-" + arch + ".tgz"
	},
	Top:         "concourse",
	Executables: []string{"bin/concourse"},
	Link:        "bin",
}

// marker is what a shared volume has.
const marker = ".shared"

// lease is short, because some tests cannot but wait for it.
const lease = 2 * time.Second

// chunk is short, so that small archives come in many.
const chunk = 256 << 10

// patience bounds one call of a unit. Whatever the lie, none may take longer.
const patience = 20 * time.Second

// order is what a unit is told to do.
type order struct {
	Do      string // open, ensure, reinstall, use, activate, verify or collect
	Version string
}

// answer is what became of an order.
type answer struct {
	Release    coordinator.Release
	Activation coordinator.Activation
	VolumeID   string
	Err        string
	Kinds      []string // of the error, by what they say
}

// kinds are the errors that tests ask for.
var kinds = []error{
	coordinator.ErrNoSpace, coordinator.ErrNotMounted, coordinator.ErrNotInstalled, coordinator.ErrCorrupt,
	probe.ErrUnfit, probe.ErrReadOnly, probe.ErrNoExec, probe.ErrNoModes, probe.ErrNoLinks, probe.ErrNoSymlinks, probe.ErrCrossDevice,
}

// is tells whether the error was of a kind.
func (a answer) is(kind error) bool { return slices.Contains(a.Kinds, kind.Error()) }

// TestMain lets the test binary be a unit, a process that takes orders, or an
// observer.
func TestMain(m *testing.M) {
	if path := os.Getenv("FAULTS_OBSERVE"); path != "" {
		pause, err := time.ParseDuration(os.Getenv("FAULTS_PAUSE"))
		if err != nil {
			panic(err)
		}
		observe(path, pause)
		os.Exit(0)
	}
	if os.Getenv("FAULTS_UNIT") == "" {
		flag.Parse()
		if testing.Short() {
			fmt.Println("skipped with -short: takes minutes, and mounts file systems")
			os.Exit(0)
		}
		// What is told to run in parallel waits for leases and late names, and needs no
		// processor.
		if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
			parallel.Value.Set("6")
		}
		os.Exit(m.Run())
	}
	if os.Getenv("FAULTS_STEPS") != "" {
		if err := announceSteps(); err != nil {
			fmt.Fprintln(os.Stderr, "cannot announce steps:", err)
			os.Exit(1)
		}
	}
	var c *coordinator.Coordinator
	orders := json.NewDecoder(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		var o order
		if orders.Decode(&o) != nil {
			os.Exit(0)
		}
		a := obey(&c, o)
		if err := answers.Encode(a); err != nil {
			os.Exit(1)
		}
	}
}

func obey(c **coordinator.Coordinator, o order) (a answer) {
	ctx := context.Background()
	var err error
	if o.Do == "open" || *c == nil {
		*c, err = coordinator.Open(ctx, os.Getenv("FAULTS_ROOT"), coordinator.Options{
			Product: concourse,
			Unit:    os.Getenv("FAULTS_UNIT"),
			Source:  os.Getenv("FAULTS_SOURCE"),
			Marker:  marker,
			Lease:   lease,
			Chunk:   chunk,
			Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
	}
	if err == nil {
		a.VolumeID = (*c).VolumeID()
		switch o.Do {
		case "ensure":
			a.Release, err = (*c).Ensure(ctx, o.Version)
		case "reinstall":
			a.Release, err = (*c).Reinstall(ctx, o.Version)
		case "use":
			a.Release, err = (*c).Use(ctx, o.Version)
		case "verify":
			err = (*c).Verify(ctx, o.Version, nil)
		case "activate":
			a.Activation, err = (*c).Activate(ctx, o.Version)
		case "collect":
			_, err = (*c).Collect(ctx)
		}
	} else {
		*c = nil
	}
	if err != nil {
		a.Err = err.Error()
		for _, kind := range kinds {
			if errors.Is(err, kind) {
				a.Kinds = append(a.Kinds, kind.Error())
			}
		}
	}
	return a
}
