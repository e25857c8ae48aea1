package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// Files is the directory through which hooks and the supervisor talk. Each file
// has one writer and is replaced as a whole.
type Files string

const (
	specFile   = "spec.json"
	statusFile = "status.json"
	memoryFile = "memory.json"
)

// Spec reads what the last hook asked for; the zero value before the first.
func (f Files) Spec() (Spec, error) { return read[Spec](f, specFile) }

// PutSpec is called by hooks only.
func (f Files) PutSpec(spec Spec) error { return f.write(specFile, spec) }

// Status reads what the supervisor saw last; the zero value before its first look.
func (f Files) Status() (Status, error) { return read[Status](f, statusFile) }

// PutStatus is called by the supervisor only.
func (f Files) PutStatus(status Status) error { return f.write(statusFile, status) }

// Silence is for how long the supervisor has not looked, as far as its file tells.
func (f Files) Silence() time.Duration {
	looked := f.written(statusFile)
	if looked.IsZero() {
		return 0 // it has not begun
	}
	return time.Since(looked)
}

// written is when a file was; zero if there is none.
func (f Files) written(name string) time.Time {
	info, err := os.Stat(f.path(name))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func (f Files) path(name string) string { return filepath.Join(string(f), name) }

// Journal is where log records wait for a hook: only a hook can write to
// Juju's log.
func (f Files) Journal() Journal { return Journal(f.path("journal")) }

// read returns the zero value where there is no such file. One that cannot be parsed, as a
// disk may have damaged it, is put aside: its writer writes it anew.
func read[T any](f Files, name string) (value T, err error) {
	data, err := os.ReadFile(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return value, nil
	}
	if err != nil {
		return value, fmt.Errorf("read %s: %w", name, err)
	}
	if json.Unmarshal(data, &value) != nil {
		return value, os.Rename(f.path(name), f.path(name)+".damaged")
	}
	return value, nil
}

func (f Files) write(name string, value any) error {
	data, err := json.MarshalIndent(value, "", "\t")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return concourse.WriteFile(f.path(name), string(data)+"\n", 0o600)
}
