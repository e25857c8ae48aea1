package coordinator_test

import (
	"context"
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
