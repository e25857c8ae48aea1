package suite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// previousCommit has the charm that clusters are refreshed from: the first one with the
// supervisor, as it was before workers knew the web server by a name.
const previousCommit = "3de6b1bdcf2c9f212c5f08b211a6d183f327c917"

// packPrevious packs the charm of previousCommit, which is kept below dir for the next
// time, and returns its path. It needs the repository's history.
func packPrevious(ctx context.Context, root, dir string, log func(string)) (string, error) {
	path := filepath.Join(dir, previousCommit, "concourse-ci-machine_amd64.charm")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	log("pack the charm of " + previousCommit[:7])
	temp, err := os.MkdirTemp("", "previous-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	for _, step := range []struct {
		dir  string
		argv []string
	}{
		{root, []string{"sh", "-c", `git archive "$1" | tar x -C "$2"`, "sh", previousCommit, temp}},
		{temp, []string{"go", "run", "-trimpath", "./charm/cmd/pack", "-o", path}},
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		cmd := exec.CommandContext(ctx, step.argv[0], step.argv[1:]...)
		cmd.Dir = step.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("cannot pack the charm of %s (a clone with its history has it; or name a packed charm): %w\n%s", previousCommit, err, out)
		}
	}
	return path, nil
}
