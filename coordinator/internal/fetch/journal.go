package fetch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// What a download keeps in its directory.
const (
	partialName = "archive.partial"
	journalName = "archive.journal"
)

const (
	// noteEvery is how many bytes, received or hashed, the journal may lag behind: all
	// that the death of the process costs. What breaks off before leaves nothing.
	noteEvery = 1 << 20
	// maxJournal bounds what is read of a journal. A MiB of an archive takes two
	// lines of together a kB: it suffices for 16 GiB, and what is behind it is only
	// fetched again.
	maxJournal = 16 << 20
)

// header is the journal's first line: what the partial file is a part of.
type header struct {
	URL         string `json:"url"`
	Fingerprint        // of the archive on the server
	Digest      string `json:"digest"` // that the whole must have
	Boot        string `json:"boot"`   // of the kernel that the lines below come from
}

// state is any other line. Each says all that is known of the partial file.
type state struct {
	There  spans             `json:"there"`
	Hashed int64             `json:"hashed"`         // bytes
	Sums   map[string][]byte `json:"sums,omitempty"` // states of the hashes, by algorithm
	Synced bool              `json:"synced,omitempty"`
}

// done grows with each byte that is received, and with each that is hashed.
func (s state) done() int64 { return s.There.bytes() + s.Hashed }

// kept is what a journal says about the partial file beside it.
type kept struct {
	header
	state
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

// readKept reads the journal in dir. It is the zero value if there is none, or none
// that the partial file could belong to.
func readKept(root *os.Root, dir, boot string) kept {
	partial, err := root.Lstat(path.Join(dir, partialName))
	if err != nil || !partial.Mode().IsRegular() {
		return kept{}
	}
	f, err := durable.Open(root, path.Join(dir, journalName))
	if err != nil {
		return kept{}
	}
	defer f.Close()
	return parseJournal(io.LimitReader(f, maxJournal), partial.Size(), boot)
}

// parseJournal reads a journal that may be damaged: a torn line ends it. Lines that
// were not synced count only while the kernel that they were written under runs; none
// counts that says more than the partial file can hold.
func parseJournal(r io.Reader, partial int64, boot string) kept {
	lines := json.NewDecoder(r)
	var k kept
	if lines.Decode(&k.header) != nil || k.Size <= 0 {
		return kept{}
	}
	for {
		var s state
		if lines.Decode(&s) != nil {
			return k
		}
		trusted := s.Synced || boot != "" && k.Boot == boot
		possible := s.There.within(min(k.Size, partial)) && s.Hashed >= 0 && s.Hashed <= s.There.prefix()
		if trusted && possible && s.done() > k.done() { // what is synced may be older than the line before
			k.state, k.Synced = s, false
		}
	}
}

// Kept returns how many bytes of an archive the journal in dir vouches for.
func Kept(root *os.Root, dir string) int64 { return readKept(root, dir, bootID()).There.bytes() }

// KeptDigest returns the digest that the archive kept in dir was fetched for. It
// is false unless all of the archive is there and a digest was known: then Open
// with that digest asks no server.
func KeptDigest(root *os.Root, dir string) (Digest, bool) {
	k := readKept(root, dir, bootID())
	d, err := ParseDigest(k.Digest)
	return d, err == nil && k.There.prefix() == k.Size
}

// Distrust forgets what was hashed of the archive that is kept in dir: the next Open
// there reads all of it anew. It tells whether anything is kept.
func Distrust(root *os.Root, dir string) (bool, error) {
	k := readKept(root, dir, bootID())
	if len(k.There) == 0 {
		return false, nil
	}
	k.Hashed, k.Sums = 0, nil
	f, err := newJournal(root, dir, k)
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// newJournal writes a journal that says what k does. It replaces the file, so that
// an earlier holder who still lives writes to nobody's.
func newJournal(root *os.Root, dir string, k kept) (*os.File, error) {
	name := path.Join(dir, journalName)
	f, err := root.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0o600)
	if err == nil {
		err = errors.Join(note(f, k.header), note(f, k.state))
	}
	if err == nil {
		err = durable.Rename(root, name+".new", name)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot begin the journal: %w", err)
	}
	return f, nil
}

// note appends a line in one write, so that lines of several goroutines do not mix.
func note(journal io.Writer, line any) error {
	if err := json.NewEncoder(journal).Encode(line); err != nil {
		return fmt.Errorf("cannot write the journal: %w", err)
	}
	return nil
}
