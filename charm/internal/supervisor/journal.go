package supervisor

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// Journal is a directory of JSON log records, as log/slog writes them. Each has a file of
// its own, so that a hook can take some while another one is written.
type Journal string

// Write adds one record.
func (j Journal) Write(record []byte) (int, error) {
	if err := os.MkdirAll(string(j), 0o700); err != nil {
		return 0, err
	}
	name := fmt.Sprintf("%d-%s", time.Now().UnixNano(), rand.Text())
	if err := concourse.WriteFile(filepath.Join(string(j), name), string(record), 0o600); err != nil {
		return 0, err
	}
	return len(record), nil
}

// records are the files to read, the oldest first.
func (j Journal) records() ([]string, error) {
	entries, err := os.ReadDir(string(j))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var paths []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") { // that is being written
			paths = append(paths, filepath.Join(string(j), e.Name()))
		}
	}
	return paths, err
}

// Log returns what writes to it.
func (j Journal) Log() *slog.Logger { return slog.New(slog.NewJSONHandler(j, nil)) }

// Waiting tells whether there is something to read.
func (j Journal) Waiting() bool {
	paths, err := j.records()
	return err == nil && len(paths) > 0
}

// Record is one line of the journal.
type Record struct {
	Level   string
	Message string // with the record's attributes
}

// Take returns the records and forgets them: each is seen by one hook, and
// none twice even when that hook fails.
func (j Journal) Take() ([]Record, error) {
	paths, err := j.records()
	var records []Record
	for _, path := range paths {
		var data []byte
		if data, err = os.ReadFile(path); err == nil {
			err = os.Remove(path)
		}
		if err != nil {
			break
		}
		if r, ok := parseRecord(data); ok { // one that was cut off by a crash is none
			records = append(records, r)
		}
	}
	if err != nil {
		return records, fmt.Errorf("take journal: %w", err)
	}
	return records, nil
}

func parseRecord(line []byte) (Record, bool) {
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil {
		return Record{}, false
	}
	record := Record{Level: fmt.Sprint(fields["level"]), Message: fmt.Sprint(fields["msg"])}
	for _, known := range []string{"level", "msg", "time"} {
		delete(fields, known)
	}
	if len(fields) > 0 {
		attributes, _ := json.Marshal(fields) // which were JSON
		record.Message += " " + string(attributes)
	}
	return record, true
}
