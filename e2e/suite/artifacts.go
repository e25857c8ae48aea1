package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/record"
)

// lastLook bounds the observation of a cluster whose scenario has failed.
const lastLook = time.Minute

// folder makes an empty folder for what a scenario leaves behind. What its former run
// has left is moved to NAME.old, in place of what was there.
func folder(base, name string) (string, error) {
	base, err := filepath.Abs(base)
	if err != nil {
		return "", fmt.Errorf("cannot make a folder for artifacts: %w", err)
	}
	dir := filepath.Join(base, name)
	if _, err := os.Stat(dir); err == nil {
		if err := os.RemoveAll(dir + ".old"); err != nil {
			return "", fmt.Errorf("cannot make room for artifacts: %w", err)
		}
		if err := os.Rename(dir, dir+".old"); err != nil {
			return "", fmt.Errorf("cannot keep old artifacts: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot make a folder for artifacts: %w", err)
	}
	return dir, nil
}

// collect saves what tells why a scenario failed, without secrets. It takes at most half
// of the context's time: the rest is for destruction.
func collect(ctx context.Context, st stage, recorder *record.Recorder, dir string) error {
	if end, limited := ctx.Deadline(); limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
	}
	// The last look also learns the secrets that are not to be kept.
	look, cancel := context.WithTimeout(ctx, lastLook)
	defer cancel()
	problems := []error{recorder.ObserveFailure(look), st.cluster.Collect(ctx, dir)}

	save := func(name string, content []byte, err error) {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), append(content, '\n'), 0o644)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
	}
	ledger, err := st.mirror.Ledger()
	save("ledger.json", ledger, err)
	observed, err := json.MarshalIndent(recorder.Record(), "", "  ")
	save("record.json", observed, err)
	problems = append(problems, redactFolder(dir, recorder.Secrets()))
	return errors.Join(problems...)
}

// writeFile writes a file by a function.
func writeFile(path string, write func(io.Writer) error) error {
	return fill(path, os.O_TRUNC, write)
}

// appendFile appends to a file by a function.
func appendFile(path string, write func(io.Writer) error) error {
	return fill(path, os.O_APPEND, write)
}

func fill(path string, flag int, write func(io.Writer) error) error {
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err != nil {
		return fmt.Errorf("cannot write a report: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|flag, 0o644)
	if err != nil {
		return fmt.Errorf("cannot write a report: %w", err)
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return fmt.Errorf("cannot write a report to %s: %w", path, err)
	}
	return nil
}
