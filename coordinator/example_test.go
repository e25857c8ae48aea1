package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// tool is what the examples install: a program in a tarball of its own.
var tool = coordinator.Product{
	Name:        "Tool",
	Archive:     func(version, arch string) string { return "tool-" + version + "-" + arch + ".tgz" },
	Top:         "tool",
	Executables: []string{"bin/tool"},
	Link:        "bin",
}

// volume stands for a directory that machines share, and a server of tarballs.
func volume(versions ...string) (root, source string, done func()) {
	root, err := os.MkdirTemp("", "volume")
	if err != nil {
		panic(err)
	}
	server := coordinator.Releases(tool, versions...)
	return root, server.URL, func() { server.Close(); os.RemoveAll(root) }
}

// Two machines share a volume. The first one downloads; the second finds the release
// there. Both may run what is in Dir.
func Example() {
	root, source, done := volume("1.2.3")
	defer done()
	ctx := context.Background()
	for _, machine := range []string{"machine/0", "machine/1"} {
		c, err := coordinator.Open(ctx, root, coordinator.Options{Unit: machine, Product: tool, Source: source})
		if err != nil {
			panic(err)
		}
		release, err := c.Use(ctx, "v1.2.3")
		if err != nil {
			panic(err)
		}
		dir, _ := filepath.Rel(root, release.Dir)
		fmt.Println(machine, "downloaded:", release.Downloaded, "runs from:", dir)
	}
	// Output:
	// machine/0 downloaded: true runs from: store/1.2.3.1
	// machine/1 downloaded: false runs from: store/1.2.3.1
}

// What went wrong is found out with errors.Is, or from the Kind of an Error; the text
// is for people.
func ExampleCoordinator_Ensure() {
	root, source, done := volume("1.2.3")
	defer done()
	ctx := context.Background()
	c, err := coordinator.Open(ctx, root, coordinator.Options{Unit: "machine/0", Product: tool, Source: source})
	if err != nil {
		panic(err)
	}
	for _, version := range []string{"1.2.3", "1.2.4", "seven"} {
		_, err := c.Ensure(ctx, version)
		var e *coordinator.Error
		switch {
		case errors.Is(err, coordinator.ErrVersion):
			fmt.Println(version, "is no version")
		case errors.Is(err, coordinator.ErrNotFound):
			fmt.Println(version, "is not released")
		case errors.As(err, &e) && e.Retry:
			fmt.Println("try again later:", err)
		default:
			fmt.Println(version, "is installed:", err == nil)
		}
	}
	// Output:
	// 1.2.3 is installed: true
	// 1.2.4 is not released
	// seven is no version
}

// An upgrade that turns out badly is taken back without a download. Use keeps the
// release that a unit runs, whatever becomes current.
func ExampleCoordinator_Rollback() {
	root, source, done := volume("1.2.2", "1.2.3", "1.2.4")
	defer done()
	ctx := context.Background()
	c, err := coordinator.Open(ctx, root, coordinator.Options{Unit: "machine/0", Product: tool, Source: source})
	if err != nil {
		panic(err)
	}
	for _, version := range []string{"1.2.2", "1.2.3", "1.2.4"} {
		if _, err := c.Use(ctx, version); err != nil {
			panic(err)
		}
		if _, err := c.Activate(ctx, version); err != nil {
			panic(err)
		}
	}
	current, err := c.Rollback(ctx)
	if err != nil {
		panic(err)
	}
	if _, err := c.Pin(ctx, current.Version); err != nil {
		panic(err)
	}
	fmt.Println("current:", current.Version)

	current, err = c.Rollback(ctx) // one further back, not forward
	if err != nil {
		panic(err)
	}
	fmt.Println("current:", current.Version)
	// Output:
	// current: 1.2.3
	// current: 1.2.2
}

// A View is for whoever looks at a volume, and changes nothing. What Verify finds,
// Reinstall mends, while those who run the old files keep them.
func ExampleView() {
	root, source, done := volume("1.2.3")
	defer done()
	ctx := context.Background()
	_, err := coordinator.Look(ctx, root, tool)
	fmt.Println("a volume:", !errors.Is(err, coordinator.ErrNoVolume))

	c, err := coordinator.Open(ctx, root, coordinator.Options{Unit: "machine/0", Product: tool, Source: source})
	if err != nil {
		panic(err)
	}
	release, err := c.Use(ctx, "1.2.3")
	if err != nil {
		panic(err)
	}
	program := filepath.Join(release.Dir, "bin/tool")
	damage(program)

	v, err := coordinator.Look(ctx, root, tool)
	if err != nil {
		panic(err)
	}
	var found *coordinator.Damage
	if errors.As(v.Verify(ctx, "1.2.3", nil), &found) {
		fmt.Println(found.Files)
	}
	if _, err := c.Reinstall(ctx, "1.2.3"); err != nil {
		panic(err)
	}
	fmt.Println("sound:", v.Verify(ctx, "1.2.3", nil) == nil)
	_, err = os.Stat(program)
	fmt.Println("the old file is there:", err == nil)
	// Output:
	// a volume: false
	// [bin/tool has other contents]
	// sound: true
	// the old file is there: true
}

// damage changes a byte of a file, as a bad disk does.
func damage(name string) {
	data, err := os.ReadFile(name)
	if err != nil {
		panic(err)
	}
	data[0] ^= 1
	if err := os.Chmod(name, 0o755); err != nil {
		panic(err)
	}
	if err := os.WriteFile(name, data, 0); err != nil {
		panic(err)
	}
	if err := os.Chmod(name, 0o555); err != nil {
		panic(err)
	}
}

// A unit that is lost is forgotten by another one: what it had pinned may be
// collected.
func ExampleCoordinator_Forget() {
	root, source, done := volume("1.2.3")
	defer done()
	ctx := context.Background()
	open := func(unit string) *coordinator.Coordinator {
		c, err := coordinator.Open(ctx, root, coordinator.Options{Unit: unit, Product: tool, Source: source})
		if err != nil {
			panic(err)
		}
		return c
	}
	if _, err := open("machine/0").Use(ctx, "1.2.3"); err != nil {
		panic(err)
	}
	other := open("machine/1")
	before, err := other.Inspect(ctx)
	if err != nil {
		panic(err)
	}
	if err := other.Forget(ctx, "machine/0"); err != nil {
		panic(err)
	}
	after, err := other.Inspect(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println(before.Pins, after.Pins)
	// Output:
	// map[machine-0:1.2.3.1] map[]
}
