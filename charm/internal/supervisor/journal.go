package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

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
