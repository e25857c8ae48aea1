package scenarios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// fly is a release's own fly, logged in as the first administrator. It is safe for
// concurrent use once it is logged in.
type fly struct {
	binary string
	home   string // for fly's target file and the tasks
	builds atomic.Int64
}

// task is a build without a network: the release's own mock type is the image.
// The changing source makes Concourse fetch the image anew and so choose any
// worker, instead of the one that has it already.
const task = `platform: linux
image_resource: {type: mock, source: {nonce: %[1]q}}
inputs: [{name: in}]
run: {path: sh, args: [-ec, 'test "$(cat in/nonce)" = %[1]s; sleep %[2]d; echo built %[1]s']}
`

// buildLimit is far above what a build takes beside the time that it is told to last;
// one that hangs must end.
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

// workers lists the workers as the web server knows them.
func (f *fly) workers(ctx context.Context) ([]observation.Worker, error) {
	workers := []observation.Worker{}
	return workers, f.list(ctx, &workers, "workers", "--json")
}

// list reads what fly prints as JSON, with warnings before it.
func (f *fly) list(ctx context.Context, into any, args ...string) error {
	out, err := f.run(ctx, args...)
	if err != nil {
		return err
	}
	_, list, _ := strings.Cut(out, "[")
	if err := json.Unmarshal([]byte("["+list), into); err != nil {
		return fmt.Errorf("cannot read what fly %s lists: %w\n%s", args[0], err, out)
	}
	return nil
}

var (
	color     = regexp.MustCompile("\x1b\\[[0-9;]*m")
	selected  = regexp.MustCompile(`selected worker: +(\S+)`)
	executing = regexp.MustCompile(`executing build (\d+)`)
)

// flaws are errors of Concourse itself that end a build now and then.
var flaws = map[string]string{
	"load proc: no running process found": "concourse#7056",
}

// results are what the exit codes of `fly execute` say.
var results = map[int]string{0: "succeeded", 1: "failed", 2: "errored"}

// build runs one real build with an uploaded input. What became of one whose end fly has
// not seen is asked of the web server.
func (f *fly) build(ctx context.Context, lasting time.Duration) observation.Build {
	n := f.builds.Add(1)
	b := observation.Build{Name: fmt.Sprintf("build %d", n), Started: time.Now().UTC(), Result: "unknown"}
	ctx, cancel := context.WithTimeout(ctx, lasting+buildLimit)
	defer cancel()
	nonce := fmt.Sprintf("%d-%d", time.Now().UnixNano(), n)
	out, err := f.execute(ctx, fmt.Sprintf("build-%d", n), nonce, lasting)
	out = color.ReplaceAllString(out, "")
	// Steps that check and fetch the image come first; the task is the last.
	if steps := selected.FindAllStringSubmatch(out, -1); len(steps) > 0 {
		b.Worker = steps[len(steps)-1][1]
	}
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		code = -1
	}
	if result, ok := results[code]; ok {
		b.Result = result
	}
	if id := executing.FindStringSubmatch(out); b.Result != "succeeded" && id != nil {
		if result, err := f.resultOf(ctx, id[1]); err == nil {
			b.Result = result
		}
	} else if b.Result == "succeeded" && !strings.Contains(out, "built "+nonce) {
		b.Result = "failed"
		out = "it succeeded without running its task:\n" + out
	}
	b.Ended = time.Now().UTC()
	if b.Result == "succeeded" {
		return b
	}
	if b.Output = out; err != nil {
		b.Output += "\n" + err.Error()
	}
	for text, flaw := range flaws {
		if b.Result == "errored" && strings.Contains(out, text) {
			b.Flaw = flaw
		}
	}
	return b
}

func (f *fly) execute(ctx context.Context, name, nonce string, lasting time.Duration) (string, error) {
	dir := filepath.Join(f.home, name)
	if err := os.MkdirAll(filepath.Join(dir, "in"), 0o755); err != nil {
		return "", err
	}
	config := fmt.Appendf(nil, task, nonce, int(lasting.Seconds()))
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "in", "nonce"), []byte(nonce), 0o644),
		os.WriteFile(filepath.Join(dir, "task.yml"), config, 0o644),
	)
	if err != nil {
		return "", err
	}
	return f.run(ctx, "execute", "--config", filepath.Join(dir, "task.yml"), "--input", "in="+filepath.Join(dir, "in"))
}

// resultOf asks for the result of a build until it has ended.
func (f *fly) resultOf(ctx context.Context, id string) (string, error) {
	for {
		var all []struct {
			ID     int    `json:"id"`
			Status string `json:"status"`
		}
		err := f.list(ctx, &all, "builds", "--count=200", "--json")
		for _, b := range all {
			if fmt.Sprint(b.ID) == id && b.Status != "started" && b.Status != "pending" {
				return b.Status, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", errors.Join(context.Cause(ctx), err)
		case <-time.After(time.Second):
		}
	}
}
