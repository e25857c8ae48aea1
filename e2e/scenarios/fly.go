package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// fly is a release's own fly, logged in as the first administrator.
type fly struct {
	binary string
	home   string // for fly's target file and the tasks
	builds int
}

// worker is a line of `fly workers`.
type worker struct {
	Name    string `json:"name"`
	State   string `json:"state"`
	Version string `json:"version"`
}

// task is a build without a network: the release's own mock type is the image.
// The changing source makes Concourse fetch the image anew and so choose any
// worker, instead of the one that has it already.
const task = `platform: linux
image_resource: {type: mock, source: {nonce: %[1]q}}
inputs: [{name: in}]
run: {path: sh, args: [-ec, 'test "$(cat in/nonce)" = %[1]s; echo built %[1]s']}
`

// buildLimit is far above what a build takes; one that hangs must end.
const buildLimit = 3 * time.Minute

func (f *fly) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, f.binary, append([]string{"--target", "suite"}, args...)...)
	cmd.Dir = f.home
	cmd.Env = append(os.Environ(), "HOME="+f.home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("fly %s: %w\n%s", args[0], err, out)
	}
	return string(out), nil
}

func (f *fly) login(ctx context.Context, url, user, password string) error {
	_, err := f.run(ctx, "login", "--concourse-url", url, "--username", user, "--password", password)
	return err
}

func (f *fly) workers(ctx context.Context) ([]worker, error) {
	out, err := f.run(ctx, "workers", "--json")
	if err != nil {
		return nil, err
	}
	// Warnings may come before the list.
	_, list, _ := strings.Cut(out, "[")
	var workers []worker
	if err := json.Unmarshal([]byte("["+list), &workers); err != nil {
		return nil, fmt.Errorf("cannot read the list of workers: %w\n%s", err, out)
	}
	return workers, nil
}

var (
	color    = regexp.MustCompile("\x1b\\[[0-9;]*m")
	selected = regexp.MustCompile(`selected worker: +(\S+)`)
)

// build runs one real build with an uploaded input and returns the worker that
// it ran on.
func (f *fly) build(ctx context.Context) (worker string, err error) {
	f.builds++
	dir := filepath.Join(f.home, fmt.Sprintf("build-%d", f.builds))
	nonce := fmt.Sprintf("%d-%d", time.Now().UnixNano(), f.builds)
	if err := os.MkdirAll(filepath.Join(dir, "in"), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "in", "nonce"), []byte(nonce), 0o644); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "task.yml"), fmt.Appendf(nil, task, nonce), 0o644); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	out, err := f.run(ctx, "execute", "--config", filepath.Join(dir, "task.yml"), "--input", "in="+filepath.Join(dir, "in"))
	if err != nil {
		return "", err
	}
	out = color.ReplaceAllString(out, "")
	if !strings.Contains(out, "built "+nonce) {
		return "", fmt.Errorf("the build succeeded without running its task:\n%s", out)
	}
	// Steps that check and fetch the image come first; the task is the last.
	steps := selected.FindAllStringSubmatch(out, -1)
	if len(steps) == 0 {
		return "", fmt.Errorf("fly does not say which worker ran the build:\n%s", out)
	}
	return steps[len(steps)-1][1], nil
}
