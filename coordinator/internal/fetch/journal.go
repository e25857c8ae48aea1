package fetch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// What a download keeps in its directory.
const (
	partialName = "archive.partial"
	journalName = "archive.journal"
)

const (
	// noteEvery is how many bytes of a chunk, or of the digest, the journal may
	// lag behind: all that the death of the process costs.
	noteEvery = 1 << 20
	// maxJournal bounds what is read of a journal. A MiB of an archive takes two
	// lines of together 350 bytes: it suffices for 48 GiB, and what is behind it is
	// only fetched again.
	maxJournal = 16 << 20
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

// kept is what a journal says about the partial file beside it.
type kept struct {
	header
	plan   plan
	hashed int64 // bytes that sums cover
	sums   map[string][]byte
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

// readKept reads the journal in dir. It is false if there is none, or none that
// the partial file could belong to.
func readKept(root *os.Root, dir, boot string) (kept, bool) {
	partial, err := root.Lstat(path.Join(dir, partialName))
	if err != nil || !partial.Mode().IsRegular() {
		return kept{}, false
	}
	f, err := durable.Open(root, path.Join(dir, journalName))
	if err != nil {
		return kept{}, false
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxJournal))
	if err != nil {
		return kept{}, false
	}
	return parseJournal(text, partial.Size(), boot)
}

// parseJournal reads a journal that may be damaged. Records that were never
// synced count only while the kernel that they were written under runs; none
// counts that says more than the partial file can hold.
func parseJournal(text []byte, partial int64, boot string) (kept, bool) {
	var k kept
	first, rest, ended := bytes.Cut(text, []byte("\n"))
	if !ended || json.Unmarshal(first, &k.header) != nil || k.Size <= 0 || k.Chunk <= 0 {
		return kept{}, false
	}
	if k.plan = newPlan(k.Size, k.Chunk); k.plan.length != k.Chunk {
		return kept{}, false // so many chunks were never made
	}
	all, trusted := 0, 0
	for rec := range records(rest) {
		all++
		trusted = max(trusted, min(rec.Synced, all))
	}
	if boot != "" && k.Boot == boot {
		trusted = all
	}
	count := func(yield func(record)) {
		n := 0
		for rec := range records(rest) {
			if n++; n > trusted {
				return
			}
			yield(rec)
		}
	}
	count(func(rec record) {
		if rec.Chunk < 0 || rec.Chunk >= len(k.plan.chunks) {
			return
		}
		start, end := k.plan.bounds(rec.Chunk)
		c := &k.plan.chunks[rec.Chunk]
		if got := min(rec.Got, end-start); got > c.got && start+got <= partial {
			k.plan.add(rec.Chunk, got-c.got)
			c.noted = got
		}
	})
	// The digest may have been faster than the line about what it read.
	count(func(rec record) {
		if rec.Hashed > k.hashed && rec.Hashed <= k.plan.prefix() {
			k.hashed, k.sums = rec.Hashed, rec.Sums
		}
	})
	return k, true
}

// records reads the lines behind the header. A torn line ends them.
func records(text []byte) iter.Seq[record] {
	return func(yield func(record) bool) {
		for {
			line, rest, ended := bytes.Cut(text, []byte("\n"))
			var rec record
			if !ended || json.Unmarshal(line, &rec) != nil || !yield(rec) {
				return
			}
			text = rest
		}
	}
}

// Kept returns how many bytes of an archive the journal in dir vouches for.
func Kept(root *os.Root, dir string) int64 {
	k, _ := readKept(root, dir, bootID())
	return k.plan.present
}

// KeptDigest returns the digest that the archive kept in dir was fetched for. It
// is false unless all of the archive is there and a digest was known: then Open
// with that digest asks no server.
func KeptDigest(root *os.Root, dir string) (Digest, bool) {
	k, ok := readKept(root, dir, bootID())
	if !ok || !k.plan.complete() {
		return Digest{}, false
	}
	d, err := ParseDigest(k.Digest)
	return d, err == nil
}

// Distrust forgets what was hashed of the archive that is kept in dir: the next Open
// there reads all of it anew. It tells whether anything is kept.
func Distrust(root *os.Root, dir string) (bool, error) {
	k, ok := readKept(root, dir, bootID())
	if !ok || k.plan.present == 0 {
		return false, nil
	}
	k.hashed, k.sums = 0, nil
	j, err := newJournal(root, dir, k)
	if err != nil {
		return false, err
	}
	return true, j.f.Close()
}

// journal appends records. It is safe for concurrent use.
type journal struct {
	mu      sync.Mutex
	f       *os.File
	records int
}

// newJournal writes a journal that says what k does. It replaces the file, so that
// an earlier holder who still lives writes to nobody's.
func newJournal(root *os.Root, dir string, k kept) (*journal, error) {
	name := path.Join(dir, journalName)
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	err := lines.Encode(k.header)
	for i, c := range k.plan.chunks {
		if c.got > 0 && err == nil {
			err = lines.Encode(record{Chunk: i, Got: c.got})
		}
	}
	if k.hashed > 0 && err == nil {
		err = lines.Encode(record{Hashed: k.hashed, Sums: k.sums})
	}
	if err != nil {
		return nil, fmt.Errorf("cannot begin the journal: %w", err)
	}
	tmp := name + ".new"
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0o600)
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
