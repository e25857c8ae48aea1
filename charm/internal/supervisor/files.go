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

// Spec reads what the last hook asked for; the zero value before the first.
func (f Files) Spec() (Spec, error) {
	var spec Spec
	return spec, f.read("spec.json", &spec)
}

// PutSpec is called by hooks only.
func (f Files) PutSpec(spec Spec) error { return f.write("spec.json", spec) }

// Status reads what the supervisor saw last; the zero value before its first look.
func (f Files) Status() (Status, error) {
	var status Status
	return status, f.read("status.json", &status)
}

// PutStatus is called by the supervisor only.
func (f Files) PutStatus(status Status) error { return f.write("status.json", status) }

// Silence is for how long the supervisor has not looked, as far as its file tells.
func (f Files) Silence() time.Duration {
	info, err := os.Stat(filepath.Join(string(f), "status.json"))
	if err != nil {
		return 0 // it has not begun
	}
	return time.Since(info.ModTime())
}

func (f Files) touchStatus() error {
	now := time.Now()
	return os.Chtimes(filepath.Join(string(f), "status.json"), now, now)
}

// specWritten is when the spec was written; zero if there is none.
func (f Files) specWritten() time.Time {
	info, err := os.Stat(filepath.Join(string(f), "spec.json"))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func (f Files) hasStatus() bool {
	_, err := os.Stat(filepath.Join(string(f), "status.json"))
	return err == nil
}

func (f Files) memory() (Memory, error) {
	var m Memory
	return m, f.read("memory.json", &m)
}

func (f Files) putMemory(m Memory) error { return f.write("memory.json", m) }

// Journal is where log records wait for a hook: only a hook can write to
// Juju's log.
func (f Files) Journal() Journal { return Journal(filepath.Join(string(f), "journal")) }

// read leaves into as it is where there is no such file. One that cannot be parsed, as a
// disk may have damaged it, is put aside: its writer writes it anew.
func (f Files) read(name string, into any) error {
	data, err := os.ReadFile(filepath.Join(string(f), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		path := filepath.Join(string(f), name)
		return os.Rename(path, path+".damaged")
	}
	return nil
}

func (f Files) write(name string, value any) error {
	data, err := json.MarshalIndent(value, "", "\t")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return concourse.WriteFile(filepath.Join(string(f), name), string(data)+"\n", 0o600)
}
