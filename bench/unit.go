package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// task is what a process is asked to do: to be one or more machines that want
// a release on a volume.
type task struct {
	Root    string `json:"root"`
	Source  string `json:"source"`
	Version string `json:"version"`
	App     string `json:"app"` // units are APP/FIRST and following
	First   int    `json:"first"`
	Units   int    `json:"units"`
	Settle  bool   `json:"settle"` // activate and pin the release too
}

// outcome is what became of a task.
type outcome struct {
	Installed  []installedBy `json:"installed"` // one a unit
	CPUSeconds float64       `json:"cpu_seconds"`
	RSSBefore  int64         `json:"rss_before"` // bytes, when it was told to begin
	RSSPeak    int64         `json:"rss_peak"`   // from then on
}

type installedBy struct {
	Downloaded bool      `json:"downloaded"` // by this unit itself
	Seconds    float64   `json:"seconds"`    // Ensure took
	Returned   time.Time `json:"returned"`
	Bytes      int64     `json:"bytes"` // of the release's files
}

// Unit is the other side of Options.Unit: a process that does the task in its
// argument, once a line comes in. It says "ready" before and prints the outcome
// after. It gives up when in ends, so that it does not outlive who started it.
func Unit(ctx context.Context, argument string, in io.Reader, out io.Writer) error {
	var t task
	if err := json.Unmarshal([]byte(argument), &t); err != nil {
		return fmt.Errorf("%w: malformed task: %w", ErrOptions, err)
	}
	members := make([]member, t.Units)
	for i := range members {
		var err error
		if members[i], err = join(t.Root, fmt.Sprintf("%s/%d", t.App, t.First+i), t.Source); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "ready")
	lines := bufio.NewReader(in)
	if _, err := lines.ReadString('\n'); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		lines.ReadByte()
		cancel()
	}()

	// From here on VmHWM is the peak of what is measured.
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return fmt.Errorf("cannot reset the peak of memory: %w", err)
	}
	before, _, err := resident()
	if err != nil {
		return err
	}
	used, err := usage(unix.RUSAGE_SELF)
	if err != nil {
		return err
	}
	o := outcome{Installed: make([]installedBy, t.Units), RSSBefore: before}
	var g errgroup.Group
	for i, m := range members {
		g.Go(func() error {
			release, err := m.ensure(ctx, t.Version)
			if err != nil {
				return err
			}
			o.Installed[i] = installedBy{release.Downloaded, release.Took.Seconds(), time.Now(), release.Bytes}
			if !t.Settle {
				return nil
			}
			return m.settle(ctx, t.Version)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	after, err := usage(unix.RUSAGE_SELF)
	if err != nil {
		return err
	}
	o.CPUSeconds = (after - used).Seconds()
	if _, o.RSSPeak, err = resident(); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(o)
}

// process runs a task.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

// start returns when the process is ready to begin.
func (r *run) start(ctx context.Context, t task) (*process, error) {
	t.Source = r.source.url
	argument, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, r.Unit[0], append(r.Unit[1:len(r.Unit):len(r.Unit)], string(argument))...)}
	p.cmd.Stderr = &p.stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start a unit: %w", err)
	}
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		return nil, p.failed(err)
	}
	return p, nil
}

// begin lets the process do its task.
func (p *process) begin() error {
	_, err := io.WriteString(p.in, "go\n")
	return err
}

// end waits for the outcome.
func (p *process) end() (outcome, error) {
	var o outcome
	if err := json.NewDecoder(p.out).Decode(&o); err != nil {
		return o, p.failed(err)
	}
	return o, errors.Join(p.in.Close(), p.cmd.Wait())
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	p.cmd.Process.Kill()
	p.in.Close()
	p.cmd.Wait() // it was killed, and says so
}

func (p *process) failed(err error) error {
	p.in.Close()
	if exit := p.cmd.Wait(); exit != nil {
		err = exit
	}
	return fmt.Errorf("a unit failed: %w: %s", err, strings.TrimSpace(p.stderr.String()))
}

// ensure runs one task from its beginning to its end.
func (r *run) ensure(ctx context.Context, t task) (outcome, error) {
	p, err := r.start(ctx, t)
	if err != nil {
		return outcome{}, err
	}
	if err := p.begin(); err != nil {
		return outcome{}, p.failed(err)
	}
	return p.end()
}
