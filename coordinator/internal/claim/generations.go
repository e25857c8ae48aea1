package claim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

const (
	// kept is how many old generations stay in the log, for people. None is needed.
	kept = 8
	// maxGeneration is the highest number that is read as a generation: at one claim
	// a second it is reached in 30 million years. Higher ones are damage.
	maxGeneration = 999_999_999_999_999
)

// record is the content of a claim.
type record struct {
	Holder
	Nonce   string `json:"nonce"`
	LeaseMS int64  `json:"lease_ms"`        // how long the holder may be silent
	Boot    string `json:"boot,omitempty"`  // of the kernel and the mount that the holder uses, see Log.boot
	Flock   uint64 `json:"flock,omitempty"` // inode of the file it has locked
}

// lease returns how long the holder may be silent.
func (r record) lease() time.Duration { return boundedLease(r.LeaseMS) }

// generations is the open directory of the log. It holds N for the claim of
// generation N and N.beat for its latest sign of life. All else in it is ignored.
type generations struct{ *os.Root }

// open opens the directory of the log anew: it may have been removed and made
// again since it was opened before.
func (l Log) open() (generations, error) {
	dir, err := durable.Again(func() (*os.Root, error) { return l.Root.OpenRoot(l.Dir) })
	if err != nil {
		return generations{}, fmt.Errorf("cannot read the claims: %w", err)
	}
	return generations{dir}, nil
}

func beatName(n int) string { return strconv.Itoa(n) + ".beat" }

// parseGeneration reads the name of a claim.
func parseGeneration(s string) (n int, ok bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n > 0 && n <= maxGeneration && strconv.Itoa(n) == s
}

// newest lists the log and returns the highest generation, at least from.
func (g generations) newest(from int) (int, error) {
	names, err := durable.Again(func() ([]string, error) { return durable.Names(g.Root, ".") })
	if err != nil {
		return 0, fmt.Errorf("cannot list the claims: %w", err)
	}
	for _, s := range names {
		if n, ok := parseGeneration(s); ok {
			from = max(from, n)
		}
	}
	// A listing may be older than a name.
	return g.follow(from)
}

// follow returns the generation that is reached from another one without a gap.
// It costs less than newest, and misses what came after generations that were
// pruned.
func (g generations) follow(from int) (int, error) {
	for {
		there, err := g.exists(from + 1)
		if err != nil || !there {
			return from, err
		}
		from++
	}
}

func (g generations) exists(n int) (bool, error) {
	if n > maxGeneration {
		return false, nil
	}
	_, err := durable.Again(func() (fs.FileInfo, error) { return g.Lstat(strconv.Itoa(n)) })
	if err != nil && !absent(err) {
		return false, fmt.Errorf("cannot look for generation %d: %w", n, err)
	}
	return err == nil, nil
}

// read returns a claim, or of one that is gone or damaged its number only.
func (g generations) read(n int) (r record, err error) {
	text, err := g.content(strconv.Itoa(n))
	if json.Unmarshal([]byte(text), &r) != nil {
		r = record{}
	}
	r.Generation = n
	return r, err
}

// content returns what a file holds, or the target of a link that leads nowhere. It is
// empty if there is no such name, or it is that of something else.
func (g generations) content(name string) (string, error) {
	data, err := durable.ReadFile(g.Root, name)
	text := string(data)
	if errors.Is(err, durable.ErrUnusable) {
		if text, err = g.Readlink(name); errors.Is(err, syscall.EINVAL) {
			return "", nil
		}
	}
	if err != nil && !absent(err) {
		return "", fmt.Errorf("cannot read the claims: %w", err)
	}
	return text, nil
}

// create makes a claim, or returns ErrHeld if somebody else has.
func (g generations) create(r record) error {
	if r.Generation > maxGeneration {
		return fmt.Errorf("cannot claim: generation %d is the last one: remove that file", maxGeneration)
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	err = durable.Create(g.Root, strconv.Itoa(r.Generation), append(data, '\n'))
	if full(err) {
		// A full volume must not keep away the one who could make room on it.
		err = durable.Create(g.Root, strconv.Itoa(r.Generation), nil)
	}
	if errors.Is(err, fs.ErrExist) {
		return ErrHeld
	}
	if err != nil {
		return fmt.Errorf("cannot claim: %w", err)
	}
	return nil
}

// setBeat replaces the sign of life. It is of no use after a power cut, and not
// synced.
func (g generations) setBeat(n int, sign string) error {
	beat, tmp := beatName(n), "."+beatName(n)
	write := func() error {
		err := durable.Write(g.Root, tmp, []byte(sign))
		if err == nil && sign == released {
			// A full volume may lose it and say nothing.
			if there, readErr := g.content(tmp); readErr == nil && there != sign {
				err = syscall.ENOSPC
			}
		}
		if full(err) {
			// A short symbolic link needs no space. Others must hear at once of a holder
			// that gives up for want of it.
			g.Remove(tmp)
			err = g.Symlink(sign, tmp)
		}
		if err != nil {
			return err
		}
		return durable.Rename(g.Root, tmp, beat)
	}
	err := write()
	for _, name := range []string{tmp, beat} {
		if err == nil {
			return nil
		}
		// Something else in its place would silence a holder that lives.
		if info, statErr := g.Lstat(name); statErr == nil && !info.Mode().IsRegular() && g.RemoveAll(name) == nil {
			err = write()
		}
	}
	if err != nil {
		return fmt.Errorf("cannot renew the claim: %w", err)
	}
	return nil
}

// prune removes what belongs to old generations, temporary files included.
func (g generations) prune(newest int) {
	names, err := durable.Names(g.Root, ".")
	if err != nil {
		return
	}
	for _, s := range names {
		number, _, _ := strings.Cut(strings.TrimPrefix(s, "."), ".")
		if n, ok := parseGeneration(number); ok && n <= newest-kept {
			g.Remove(s)
		}
	}
}

// absent tells whether an error means that there is no such name. After any other
// error nobody knows.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE)
}

func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
