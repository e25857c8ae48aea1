// Package probe finds out what a mount can do. Preflight refuses one that cannot
// carry a release, before anything is downloaded. Mount tells all about one: its
// result decides what is tried and what people are told, never what is trusted,
// since a mount can change its mind.
package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// limit is how long a probe asks at most; tidying up after it may take tidied.
const (
	limit  = 1800 * time.Millisecond
	tidied = 200 * time.Millisecond
)

// Prefix begins the names of directories in which a mount is probed. One that is
// left hung.
const Prefix = ".probe-"

// Prober probes one mount, and does so once at a time.
//
// A call that hangs cannot be interrupted. With a helper it hangs in a process of
// its own; that is killed, and nobody waits for its end. Without one it hangs in
// goroutines of this process, which cannot exit before they return. In both cases
// a mount that hangs holds what one probe has started: no other probe starts
// before that has ended.
type Prober struct {
	helper []string
	turn   chan struct{} // holds a value while a probe is under way
}

// NewProber returns one that asks the mount from another process if helper is a
// command that calls Help with the argument that is appended to it.
func NewProber(helper ...string) *Prober { return &Prober{helper, make(chan struct{}, 1)} }

// Mount probes the mount that root is on, in a new directory below root which is
// removed again. It returns within 2 s, and 0.2 s after ctx has ended, whatever
// hangs; root may be closed then. Nothing can be written on a mount that is
// read-only: it is reported as such, and what needs writing is Unknown. While an
// earlier probe hangs, everything is reported to hang. The error is one of making
// the directory or of starting the helper, or that of ctx.
func (p *Prober) Mount(ctx context.Context, root *os.Root) (Result, error) {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	late := make(chan struct{})
	defer context.AfterFunc(limited, func() { time.AfterFunc(tidied, func() { close(late) }) })()
	var mu sync.Mutex // who comes late writes when this call has returned
	found := allAnswered(Hangs, Hanging)
	tell := func(r Result) {
		mu.Lock()
		defer mu.Unlock()
		found = r
	}
	select {
	case p.turn <- struct{}{}:
		ended := make(chan error, 1)
		go func() {
			defer func() { <-p.turn }()
			ended <- p.ask(limited, root, tell)
		}()
		select {
		case err := <-ended:
			if err != nil && limited.Err() == nil {
				return Result{}, fmt.Errorf("cannot probe %s: %w", root.Name(), err)
			}
		case <-late:
		}
	case <-limited.Done():
		found.Notes = []string{"an earlier probe hangs still"}
	}
	mu.Lock()
	defer mu.Unlock()
	r := found
	r.Notes = slices.Sorted(slices.Values(found.Notes))
	r.Took = time.Since(start)
	return r, ctx.Err()
}

// ask puts the questions and tells what is known after each answer. It returns when
// all have come, and with a helper also when ctx ends, provided that it can be killed.
func (p *Prober) ask(ctx context.Context, root *os.Root, tell func(Result)) error {
	// Whoever called may close root meanwhile. With O_PATH the file system is not
	// asked to open anything, and cannot hang here.
	dir, err := root.OpenFile(".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	name := Prefix + rand.Text()
	here := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
	if len(p.helper) == 0 {
		return answer(here, tell)
	}
	if err = p.help(ctx, dir, name, tell); err != nil {
		// Who was killed may have left something.
		err = errors.Join(err, os.RemoveAll(here))
	}
	return err
}

// help has the helper ask in the directory name below dir.
func (p *Prober) help(ctx context.Context, dir *os.File, name string, tell func(Result)) error {
	const inherited = "/proc/self/fd/3/" // the first of ExtraFiles
	cmd := exec.CommandContext(ctx, p.helper[0], append(slices.Clone(p.helper[1:]), inherited+name)...)
	cmd.ExtraFiles = []*os.File{dir}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := json.NewDecoder(io.LimitReader(out, 1<<20))
	for r := (Result{}); lines.Decode(&r) == nil; r = (Result{}) {
		tell(r)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return nil
}

// Help is the other side of a helper: it asks the mount in the directory that
// Mount has named, and writes down what is known after each answer. One of another
// version of this program is understood as far as its Result is.
func Help(dir string, out io.Writer) error {
	var failed error
	err := answer(dir, func(r Result) { failed = errors.Join(failed, json.NewEncoder(out).Encode(r)) })
	return errors.Join(err, failed)
}
