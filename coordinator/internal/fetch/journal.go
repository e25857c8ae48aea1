package fetch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// What a download keeps in its directory.
const (
	partialName = "archive.partial"
	journalName = "archive.journal"
)

// header is the journal's first line: what the partial file is a part of.
type header struct {
	URL       string `json:"url"`
	Validator string `json:"validator"` // of the server, for If-Range
	Digest    string `json:"digest"`    // that the whole must have
	Size      int64  `json:"size"`
	Chunk     int64  `json:"chunk"`
	Boot      string `json:"boot"` // of the kernel that the lines below come from
}

// record is any other line. Each says one thing.
type record struct {
	// So many bytes of a chunk are there, from its start.
	Chunk int   `json:"chunk,omitempty"`
	Got   int64 `json:"got,omitempty"`
	// So many bytes of the archive are hashed, with the hashes' states by
	// algorithm.
	Hashed int64             `json:"hashed,omitempty"`
	Sums   map[string][]byte `json:"sums,omitempty"`
	// So many records survive a power cut.
	Synced int `json:"synced,omitempty"`
}

// remains is what a journal says about the partial file beside it.
type remains struct {
	header
	got    []int64 // by chunk
	hashed int64
	sums   map[string][]byte
}

// kept returns how many bytes there are.
func (r remains) kept() int64 {
	var n int64
	for _, got := range r.got {
		n += got
	}
	return n
}

// journal appends. It is safe for concurrent use.
type journal struct {
	mu      sync.Mutex
	f       *os.File
	records int
}

// bootID names the running kernel. Pages written under it are seen by everyone
// under it, synced or not, whatever became of the process that wrote them.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// look reads the journal in dir. Lines that were never synced count only while
// the kernel that they were written under runs; a torn line ends the journal.
func look(root *os.Root, dir, boot string) (remains, bool) {
	var r remains
	data, err := root.ReadFile(path.Join(dir, journalName))
	if err != nil {
		return r, false
	}
	partial, err := root.Stat(path.Join(dir, partialName))
	if err != nil {
		return r, false
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	if json.Unmarshal(lines[0], &r.header) != nil || r.Size <= 0 || r.Chunk <= 0 {
		return r, false
	}
	r.got = make([]int64, chunks(r.Size, r.Chunk))
	var records []record
	trusted := 0
	for _, line := range lines[1:] {
		var rec record
		if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &rec) != nil {
			break
		}
		records = append(records, rec)
		trusted = max(trusted, min(rec.Synced, len(records)))
	}
	if boot != "" && r.Boot == boot {
		trusted = len(records)
	}
	for _, rec := range records[:trusted] {
		if rec.Chunk < 0 || rec.Chunk >= len(r.got) {
			continue
		}
		start := int64(rec.Chunk) * r.Chunk
		if got := min(rec.Got, r.Chunk, r.Size-start); start+got <= partial.Size() {
			r.got[rec.Chunk] = max(r.got[rec.Chunk], got)
		}
	}
	// The digest may have been faster than the line about what it read.
	var prefix int64
	for i, got := range r.got {
		prefix = int64(i)*r.Chunk + got
		if got < min(r.Chunk, r.Size-int64(i)*r.Chunk) {
			break
		}
	}
	for _, rec := range records[:trusted] {
		if rec.Hashed > r.hashed && rec.Hashed <= prefix {
			r.hashed, r.sums = rec.Hashed, rec.Sums
		}
	}
	return r, true
}

func chunks(size, chunk int64) int64 { return (size + chunk - 1) / chunk }

// begin writes a journal that says what r does. It replaces the file, so that
// an earlier holder who still lives writes to nobody's.
func begin(root *os.Root, dir string, r remains) (*journal, error) {
	name := path.Join(dir, journalName)
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	err := lines.Encode(r.header)
	for i, got := range r.got {
		if got > 0 && err == nil {
			err = lines.Encode(record{Chunk: i, Got: got})
		}
	}
	if r.hashed > 0 && err == nil {
		err = lines.Encode(record{Hashed: r.hashed, Sums: r.sums})
	}
	if err != nil {
		return nil, err
	}
	tmp := name + ".new"
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot begin the journal: %w", err)
	}
	if _, err = f.Write(text.Bytes()); err == nil {
		err = durable.Rename(root, tmp, name)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot begin the journal: %w", err)
	}
	return &journal{f: f, records: bytes.Count(text.Bytes(), []byte("\n")) - 1}, nil
}

func (j *journal) append(r record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records++
	if _, err := j.f.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	return nil
}

// sync makes what the journal says, and before it what of the archive it says it
// of, survive a power cut.
func (j *journal) sync(archive func() error) error {
	j.mu.Lock()
	before := j.records
	j.mu.Unlock()
	if err := archive(); err != nil {
		return err
	}
	if err := j.append(record{Synced: before}); err != nil {
		return err
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("cannot sync the journal: %w", err)
	}
	return nil
}
