package juju

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"

	lxd "github.com/canonical/lxd/client"
	"github.com/canonical/lxd/shared/api"
)

// lxdServer is a local LXD. Each of its calls ends when its context does.
type lxdServer struct {
	client lxd.InstanceServer
	stop   context.CancelFunc // ends what was left behind
}

// connectLXD connects to the LXD behind a unix socket.
func connectLXD(ctx context.Context, socket string) (*lxdServer, error) {
	// The client keeps its context for all that it does, and cleaning up comes when the
	// caller's may have ended.
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	client, err := valueWithin(ctx, func() (lxd.InstanceServer, error) {
		return lxd.ConnectLXDUnixWithContext(own, socket, nil)
	})
	if err != nil {
		stop()
		return nil, fmt.Errorf("cannot connect to LXD at %s: %w", socket, err)
	}
	return &lxdServer{client: client, stop: stop}, nil
}

// askLXD makes one call of LXD's API that has a result.
func askLXD[T any](ctx context.Context, s *lxdServer, call func(lxd.InstanceServer) (T, error)) (T, error) {
	return valueWithin(ctx, func() (T, error) { return call(s.client) })
}

// operate starts an operation and waits until it has ended.
func (s *lxdServer) operate(ctx context.Context, start func(lxd.InstanceServer) (lxd.Operation, error)) error {
	return within(ctx, func() error {
		op, err := start(s.client)
		if err != nil {
			return err
		}
		return op.WaitContext(ctx)
	})
}

// change has an instance change its state: start, stop, freeze or unfreeze. Nothing is
// asked to end by itself.
func (s *lxdServer) change(ctx context.Context, instance, action string) error {
	return s.operate(ctx, func(client lxd.InstanceServer) (lxd.Operation, error) {
		return client.UpdateInstanceState(instance, api.InstanceStatePut{Action: action, Force: action == "stop", Timeout: -1}, "")
	})
}

// instances lists the instances whose names have a prefix.
func (s *lxdServer) instances(ctx context.Context, prefix string) ([]api.Instance, error) {
	all, err := askLXD(ctx, s, func(client lxd.InstanceServer) ([]api.Instance, error) {
		return client.GetInstances(api.InstanceTypeAny)
	})
	return slices.DeleteFunc(all, func(i api.Instance) bool { return !strings.HasPrefix(i.Name, prefix) }), err
}

func (s *lxdServer) state(ctx context.Context, instance string) (*api.InstanceState, error) {
	return askLXD(ctx, s, func(client lxd.InstanceServer) (*api.InstanceState, error) {
		state, _, err := client.GetInstanceState(instance)
		return state, err
	})
}

// is tells whether an instance is in a state. One that cannot be asked is in none.
func (s *lxdServer) is(ctx context.Context, instance string, code api.StatusCode) bool {
	state, err := s.state(ctx, instance)
	return err == nil && state.StatusCode == code
}

// exitError is a command that ran and failed.
type exitError struct {
	code   int
	stderr string // its end
}

func (e *exitError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("exit status %d: %s", e.code, e.stderr), ": ")
}

// stderrKept is how much of what a command complained about an error shows.
const stderrKept = 4 << 10

// exec runs a command in an instance as root and returns its standard output, also if
// it failed: that is an exitError. When ctx ends, the command is killed.
func (s *lxdServer) exec(ctx context.Context, instance string, stdin io.Reader, argv ...string) ([]byte, error) {
	if stdin == nil {
		stdin = bytes.NewReader(nil)
	}
	type result struct {
		stdout []byte
		failed error
	}
	r, err := valueWithin(ctx, func() (result, error) {
		var stdout, stderr bytes.Buffer
		drained, ended := make(chan bool), make(chan struct{})
		defer close(ended)
		args := lxd.InstanceExecArgs{Stdin: stdin, Stdout: &stdout, Stderr: &stderr, DataDone: drained}
		controlWith(&args.Control, func(control jsonWriter) {
			select {
			case <-ctx.Done():
			case <-ended:
			}
			if ctx.Err() != nil {
				control.WriteJSON(api.InstanceExecControl{Command: "signal", Signal: int(syscall.SIGKILL)})
			}
		})
		op, err := s.client.ExecInstance(instance, api.InstanceExecPost{Command: argv, WaitForWS: true}, &args)
		if err != nil {
			return result{}, err
		}
		if err := op.WaitContext(ctx); err != nil {
			return result{}, err
		}
		select {
		case <-drained:
		case <-ctx.Done():
			return result{}, context.Cause(ctx)
		}
		code, ok := op.Get().Metadata["return"].(float64)
		if !ok {
			return result{}, errors.New("LXD did not say how it ended")
		}
		if code == 0 {
			return result{stdout: stdout.Bytes()}, nil
		}
		complaint := bytes.TrimSpace(stderr.Bytes())
		complaint = complaint[max(0, len(complaint)-stderrKept):]
		return result{stdout.Bytes(), &exitError{int(code), string(complaint)}}, nil
	})
	if err == nil {
		err = r.failed
	}
	return r.stdout, err
}

type jsonWriter interface{ WriteJSON(message any) error }

// controlWith sets the function that gets a command's control connection. The
// connection's type is of a module that is required by LXD's only; here it is inferred.
func controlWith[C jsonWriter](field *func(C), control func(jsonWriter)) {
	*field = func(conn C) { control(conn) }
}
