package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// Two units share a volume. The first one to call Ensure downloads; the second
// finds the release there.
func Example() {
	root, err := os.MkdirTemp("", "volume")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)
	source := coordinator.Releases("7.14.3") // a server in GitHub's layout
	defer source.Close()
	ctx := context.Background()

	for _, unit := range []string{"concourse-ci/0", "concourse-ci/1"} {
		c, err := coordinator.Open(root, coordinator.Options{Unit: unit, Source: source.URL})
		if err != nil {
			panic(err)
		}
		release, err := c.Ensure(ctx, "v7.14.3")
		if err != nil {
			panic(err)
		}
		current, err := c.Activate(ctx, release.Version)
		if err != nil {
			panic(err)
		}
		fmt.Println(unit, "downloaded:", release.Downloaded, "current:", current.Version, "generation:", current.Generation)
	}
	// Output:
	// concourse-ci/0 downloaded: true current: 7.14.3 generation: 1
	// concourse-ci/1 downloaded: false current: 7.14.3 generation: 1
}

// What went wrong is found out with errors.Is; the text is for people.
func ExampleCoordinator_Ensure() {
	root, err := os.MkdirTemp("", "volume")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)
	source := coordinator.Releases("7.14.3")
	defer source.Close()
	c, err := coordinator.Open(root, coordinator.Options{Unit: "concourse-ci/0", Source: source.URL})
	if err != nil {
		panic(err)
	}
	for _, version := range []string{"7.14.3", "7.14.4", "seven"} {
		_, err := c.Ensure(context.Background(), version)
		switch {
		case errors.Is(err, coordinator.ErrVersion):
			fmt.Println(version, "is no version")
		case errors.Is(err, coordinator.ErrNotFound):
			fmt.Println(version, "is not released")
		case errors.Is(err, coordinator.ErrUnreachable), errors.Is(err, coordinator.ErrNoSpace):
			fmt.Println("try again later:", err)
		default:
			fmt.Println(version, "is installed:", err == nil)
		}
	}
	// Output:
	// 7.14.3 is installed: true
	// 7.14.4 is not released
	// seven is no version
}

// An upgrade that turns out badly is taken back without a download. Pin keeps
// the release that a unit runs, whatever becomes current.
func ExampleCoordinator_Rollback() {
	root, err := os.MkdirTemp("", "volume")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)
	source := coordinator.Releases("7.14.2", "7.14.3", "7.14.4")
	ctx := context.Background()
	c, err := coordinator.Open(root, coordinator.Options{Unit: "concourse-ci/0", Source: source.URL})
	if err != nil {
		panic(err)
	}
	for _, version := range []string{"7.14.2", "7.14.3", "7.14.4"} {
		if _, err := c.Ensure(ctx, version); err != nil {
			panic(err)
		}
		if _, err := c.Activate(ctx, version); err != nil {
			panic(err)
		}
	}
	source.Close()

	current, err := c.Rollback(ctx)
	if err != nil {
		panic(err)
	}
	if err := c.Pin(current.Version); err != nil {
		panic(err)
	}
	removed, err := c.Collect(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println("current:", current.Version)
	fmt.Println("removed:", removed)
	// Output:
	// current: 7.14.3
	// removed: [releases/7.14.2]
}

// Inspect works on any volume, for whoever asks.
func ExampleInspect() {
	root, err := os.MkdirTemp("", "volume")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)
	ctx := context.Background()
	_, err = coordinator.Inspect(ctx, root)
	fmt.Println("a volume:", !errors.Is(err, coordinator.ErrNoVolume))

	c, err := coordinator.Open(root, coordinator.Options{Unit: "concourse-ci/0"})
	if err != nil {
		panic(err)
	}
	if _, err := c.Probe(ctx); err != nil {
		panic(err)
	}
	i, err := coordinator.Inspect(ctx, root)
	if err != nil {
		panic(err)
	}
	fmt.Println("releases:", len(i.Releases), "links:", i.Probes["concourse-ci-0"].Link)
	// Output:
	// a volume: false
	// releases: 0 links: works
}
