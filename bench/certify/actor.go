package certify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// actor is another process, which does one thing after the other for this one.
type actor struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
	stderr bytes.Buffer
}

// request is what an actor is asked to do.
type request struct {
	Do      string   `json:"do"` // the name of one of the deeds
	Path    string   `json:"path,omitempty"`
	Names   []string `json:"names,omitempty"`
	How     string   `json:"how,omitempty"` // of a race: "link" or "create"
	Install *install `json:"install,omitempty"`
}

// reply is what came of it.
type reply struct {
	Error    string     `json:"error,omitempty"`
	Began    bool       `json:"began,omitempty"` // it is under way; another reply follows
	State    string     `json:"state,omitempty"` // in which an install is then
	Got      bool       `json:"got,omitempty"`   // the lock; or: the release is sound
	Won      []string   `json:"won,omitempty"`
	Data     []byte     `json:"data,omitempty"`
	Identity identity   `json:"identity,omitzero"`
	Release  *installed `json:"release,omitempty"`
}

// start starts an actor, which ends with ctx at the latest.
func (r *run) start(ctx context.Context) (*actor, error) {
	a := &actor{cmd: exec.CommandContext(ctx, r.Helper[0], r.Helper[1:]...)}
	a.cmd.Stderr = &a.stderr
	a.cmd.WaitDelay = 2 * time.Second
	var err error
	if a.in, err = a.cmd.StdinPipe(); err != nil {
		return nil, harness(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		return nil, harness(err)
	}
	a.out = json.NewDecoder(out)
	if err := a.cmd.Start(); err != nil {
		return nil, harness(fmt.Errorf("cannot start another process: %w", err))
	}
	return a, nil
}

// startAll starts some actors. end ends them.
func (r *run) startAll(ctx context.Context, n int) (actors []*actor, end func(), err error) {
	end = func() {
		for _, a := range actors {
			a.in.Close() // all of them end at once
		}
		for _, a := range actors {
			a.end()
		}
	}
	for range n {
		a, err := r.start(ctx)
		if err != nil {
			end()
			return nil, nil, err
		}
		actors = append(actors, a)
	}
	return actors, end, nil
}

// ask sends a request and waits for the reply. The error is what the actor has met on the
// mount, or that of the harness.
func (a *actor) ask(q request) (reply, error) {
	if err := a.send(q); err != nil {
		return reply{}, err
	}
	return a.hear()
}

func (a *actor) send(q request) error {
	if err := json.NewEncoder(a.in).Encode(q); err != nil {
		return a.lost(err)
	}
	return nil
}

func (a *actor) hear() (reply, error) {
	var got reply
	if err := a.out.Decode(&got); err != nil {
		return got, a.lost(err)
	}
	if got.Error != "" {
		return got, errors.New(got.Error)
	}
	return got, nil
}

// askAll sends a request to each actor, and then waits for the replies.
func askAll(actors []*actor, ask func(i int) request) ([]reply, error) {
	for i, a := range actors {
		if err := a.send(ask(i)); err != nil {
			return nil, err
		}
	}
	replies := make([]reply, len(actors))
	var failed error
	for i, a := range actors {
		var err error
		replies[i], err = a.hear()
		failed = errors.Join(failed, err)
	}
	return replies, failed
}

func (a *actor) lost(err error) error {
	a.end()
	return harness(fmt.Errorf("another process ended: %w: %s", err, strings.TrimSpace(a.stderr.String())))
}

// end ends the actor: in order if it has nothing to do. It has nothing to lose.
func (a *actor) end() {
	a.in.Close()
	timer := time.AfterFunc(time.Second, func() { a.cmd.Process.Kill() })
	defer timer.Stop()
	a.cmd.Wait() // how it ended says nothing about the mount
}

// kill ends it with SIGKILL.
func (a *actor) kill() {
	a.cmd.Process.Kill()
	a.in.Close()
	a.cmd.Wait()
}
