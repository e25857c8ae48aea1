package watcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// Files is the directory through which hooks and the watcher talk. Each file
// has one writer and is replaced as a whole.
type Files string

// Want reads what the last hook asked for; the zero value before the first.
func (f Files) Want() (Want, error) {
	var want Want
	return want, f.read("want.json", &want)
}

// PutWant is called by hooks only.
func (f Files) PutWant(want Want) error { return f.write("want.json", want) }

// Found reads what the watcher saw last; the zero value before its first look.
func (f Files) Found() (Found, error) {
	var found Found
	return found, f.read("found.json", &found)
}

// PutFound is called by the watcher only.
func (f Files) PutFound(found Found) error { return f.write("found.json", found) }

// Journal is where log records wait for a hook: only a hook can write to
// Juju's log.
func (f Files) Journal() Journal { return Journal(filepath.Join(string(f), "journal.jsonl")) }

func (f Files) read(name string, into any) error {
	data, err := os.ReadFile(filepath.Join(string(f), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("parse %s: %w", name, err)
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

// Journal is a file of JSON log records, as log/slog writes them.
type Journal string

// Write appends one record. The file is opened anew for each, because a hook
// takes it away when it reads it.
func (j Journal) Write(record []byte) (int, error) {
	f, err := os.OpenFile(string(j), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := f.Write(record)
	return n, errors.Join(err, f.Close())
}

// Waiting tells whether there is something to read.
func (j Journal) Waiting() bool {
	info, err := os.Stat(string(j))
	return err == nil && info.Size() > 0
}

// Record is one line of the journal.
type Record struct {
	Level   string
	Message string // with the record's attributes
}

// Take returns the records and forgets them: each is seen by one hook, and
// none twice even when that hook fails.
func (j Journal) Take() ([]Record, error) {
	taken := string(j) + ".taken"
	if err := os.Rename(string(j), taken); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("take journal: %w", err)
	}
	data, err := os.ReadFile(taken)
	if err = errors.Join(err, os.Remove(taken)); err != nil {
		return nil, fmt.Errorf("take journal: %w", err)
	}
	var records []Record
	for line := range strings.Lines(string(data)) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) != nil {
			continue // cut off by a crash
		}
		record := Record{Level: fmt.Sprint(fields["level"]), Message: fmt.Sprint(fields["msg"])}
		for _, known := range []string{"level", "msg", "time"} {
			delete(fields, known)
		}
		if len(fields) > 0 {
			attributes, err := json.Marshal(fields)
			if err != nil {
				return nil, fmt.Errorf("take journal: %w", err)
			}
			record.Message += " " + string(attributes)
		}
		records = append(records, record)
	}
	return records, nil
}
