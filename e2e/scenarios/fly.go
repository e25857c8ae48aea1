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
	"sync"
	"sync/atomic"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// fly is a release's own fly, logged in as the first administrator. It is safe for
// concurrent use once it is logged in. Another login, such as at a web server that has
// moved, holds for the builds that are under way, too.
type fly struct {
	home   string // for fly's target file and the tasks
	builds atomic.Int64

	mu     sync.Mutex
	binary string
	url    string
	left   chan struct{} // closed by a login at another web server
}

// task is a build without a network: the release's own mock type is the image.
// The changing source makes Concourse fetch the image anew and so choose any
// worker, instead of the one that has it already.
const task = `platform: linux
image_resource: {type: mock, source: {nonce: %[1]q}}
inputs: [{name: in}]
run: {path: sh, args: [-ec, 'test "$(cat in/nonce)" = %[1]s; echo begun %[1]s; %[2]s']}
`

// pipeline has one job, with a resource that it gets.
const pipeline = `resources: [{name: in, type: mock, source: {}}]
jobs:
- name: build
  plan:
  - get: in
  - task: build
    config:
      platform: linux
      image_resource: {type: mock, source: {}}
      run: {path: sh, args: [-ec, 'echo begun job']}
`

// buildLimit is far above what a build takes beside the time that it is told to last;
// one that hangs must end.
const buildLimit = 3 * time.Minute

func (f *fly) run(ctx context.Context, args ...string) (string, error) {
	return f.watch(ctx, func(string) {}, args...)
}

// watch is run that hands on all that fly has printed, each time that it prints more.
func (f *fly) watch(ctx context.Context, more func(printed string), args ...string) (string, error) {
	f.mu.Lock()
	binary, left := f.binary, f.left
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-left: // A machine that is off leaves its connections open.
			cancel()
		case <-ctx.Done():
		}
	}()
	out := output{more: more}
	cmd := exec.CommandContext(ctx, binary, append([]string{"--target", "suite"}, args...)...)
	cmd.Dir = f.home
	cmd.Env = append(os.Environ(), "HOME="+f.home)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.text, fmt.Errorf("fly %s: %w\n%s", args[0], err, out.text)
	}
	return out.text, nil
}

// output is what a program has printed, without colors.
type output struct {
	text string
	more func(printed string)
}

func (o *output) Write(p []byte) (int, error) {
	o.text = color.ReplaceAllString(o.text+string(p), "")
	o.more(o.text)
	return len(p), nil
}

func (f *fly) login(ctx context.Context, binary, url, user, password string) error {
	f.mu.Lock()
	f.binary = binary
	if f.url != url {
		if f.left != nil {
			close(f.left)
		}
		f.url, f.left = url, make(chan struct{})
	}
	f.mu.Unlock()
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
	color    = regexp.MustCompile("\x1b\\[[0-9;]*m")
	selected = regexp.MustCompile(`selected worker: +(\S+)`)
	// numbered is how `execute` and `trigger-job` name a build: by the number that is
	// its own among all, or its job's.
	numbered = regexp.MustCompile(`executing build (\d+)|started (\S+ #\d+)`)
)

// flaws are errors of Concourse itself that end a build now and then.
var flaws = map[string]string{
	"load proc: no running process found":  "concourse#7056",
	"proc closeio: process does not exist": "concourse#6959",
}

// notBegun is the result of a build that the web server has not taken.
const notBegun = "not begun"

// results are what the exit codes of fly say about the build that it has watched.
var results = map[int]string{0: "succeeded", 1: "failed", 2: "errored"}

// build runs one real build with an uploaded input, and calls begun with its worker when
// its task runs.
func (f *fly) build(ctx context.Context, lasting time.Duration, begun func(worker string)) observation.Build {
	return f.task(ctx, fmt.Sprintf("sleep %d", int(lasting.Seconds())), lasting, begun)
}

// task is build with a command of its own, which lasts so long at most.
func (f *fly) task(ctx context.Context, command string, lasting time.Duration, begun func(worker string)) observation.Build {
	n := f.builds.Add(1)
	nonce := fmt.Sprintf("%d-%d", time.Now().UnixNano(), n)
	var due time.Time
	b := f.account(ctx, fmt.Sprint(n), lasting, nonce, func(ctx context.Context) (string, error) {
		dir := filepath.Join(f.home, fmt.Sprintf("build-%d", n))
		if err := os.MkdirAll(filepath.Join(dir, "in"), 0o755); err != nil {
			return "", err
		}
		config := filepath.Join(dir, "task.yml")
		err := errors.Join(
			os.WriteFile(filepath.Join(dir, "in", "nonce"), []byte(nonce), 0o644),
			os.WriteFile(config, fmt.Appendf(nil, task, nonce, command), 0o644),
		)
		if err != nil {
			return "", err
		}
		return f.watch(ctx, func(printed string) {
			if due.IsZero() && printedLine(printed, "begun "+nonce) {
				due = time.Now().UTC().Add(lasting)
				begun(lastWorker(printed))
			}
		}, "execute", "--config", config, "--input", "in="+filepath.Join(dir, "in"))
	})
	b.Due = due
	return b
}

// jobs makes a pipeline with a job.
func (f *fly) jobs(ctx context.Context) error {
	config := filepath.Join(f.home, "pipeline.yml")
	if err := os.WriteFile(config, []byte(pipeline), 0o644); err != nil {
		return err
	}
	_, err := f.run(ctx, "set-pipeline", "--non-interactive", "--pipeline", "suite", "--config", config)
	if err == nil {
		_, err = f.run(ctx, "unpause-pipeline", "--pipeline", "suite")
	}
	return err
}

// job runs a build of the pipeline's job.
func (f *fly) job(ctx context.Context) observation.Build {
	name := fmt.Sprintf("%d of the job", f.builds.Add(1))
	return f.account(ctx, name, 0, "job", func(ctx context.Context) (string, error) {
		return f.run(ctx, "trigger-job", "--job", "suite/build", "--watch")
	})
}

// account says what became of a build that fly runs and watches. It asks the web server
// about one whose end fly has not seen. A task prints begun with the nonce when it
// begins. That proves nothing of one that has succeeded: Concourse loses lines of short
// tasks now and then.
func (f *fly) account(ctx context.Context, name string, lasting time.Duration, nonce string, run func(context.Context) (string, error)) observation.Build {
	b := observation.Build{Name: name, Started: time.Now().UTC(), Result: "unknown"}
	ctx, cancel := context.WithTimeout(ctx, lasting+buildLimit)
	defer cancel()
	out, err := run(ctx)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		code = -1
	}
	if result, ok := results[code]; ok {
		b.Result = result
	}
	number := numbered.FindStringSubmatch(out)
	switch {
	case b.Result == "succeeded":
	case number == nil:
		b.Result = notBegun
	default:
		if result, err := f.resultOf(ctx, number[1]+number[2]); err == nil {
			b.Result = result
		}
		if all, _ := f.run(ctx, "watch", "--build", number[1]); printedLine(all, "begun "+nonce) {
			out = all
		}
	}
	b.Ended = time.Now().UTC()
	b.Worker = lastWorker(out)
	b.Begun = strings.Count(out, "\nbegun "+nonce)
	if b.Result != "succeeded" || b.Begun > 1 {
		if b.Output = out; err != nil {
			b.Output += "\n" + err.Error()
		}
	}
	for text, flaw := range flaws {
		if b.Result == "errored" && strings.Contains(out, text) {
			b.Flaw = flaw
		}
	}
	return b
}

// printedLine tells whether a line begins so. The command of a task is printed, too.
func printedLine(printed, begin string) bool { return strings.Contains(printed, "\n"+begin) }

// lastWorker is the worker of a build's last step, its task: steps that check and fetch
// come before it.
func lastWorker(printed string) string {
	steps := selected.FindAllStringSubmatch(printed, -1)
	if len(steps) == 0 {
		return ""
	}
	return steps[len(steps)-1][1]
}

// resultOf asks for the result of a build until it has ended. Its name is its number, or
// that of its job with its number there.
func (f *fly) resultOf(ctx context.Context, name string) (string, error) {
	for {
		var all []struct {
			ID       int    `json:"id"`
			Name     string `json:"name"`
			Pipeline string `json:"pipeline_name"`
			Job      string `json:"job_name"`
			Status   string `json:"status"`
		}
		err := f.list(ctx, &all, "builds", "--count=200", "--json")
		for _, b := range all {
			is := name == fmt.Sprint(b.ID) || name == fmt.Sprintf("%s/%s #%s", b.Pipeline, b.Job, b.Name)
			if is && b.Status != "started" && b.Status != "pending" {
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
