package claim

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

const (
	// kept is how many old generations stay in the log, for people. None is needed.
	kept = 8
	// maxGeneration is the highest number that is read as a generation: at one claim
	// a second it is reached in 30 million years. Higher ones are damage.
	maxGeneration = 999_999_999_999_999
	// maxContent is how much of a file is read. A record has some 300 bytes.
	maxContent = 4096
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
func (r record) lease() time.Duration {
	return boundedLease(time.Duration(max(0, min(r.LeaseMS, maxLease.Milliseconds()))) * time.Millisecond)
}

// generations is the open directory of the log. It holds N for the claim of
// generation N and N.beat for its latest sign of life. All else in it is ignored.
type generations struct{ dir *os.Root }

// open opens the directory of the log anew: it may have been removed and made
// again since it was opened before.
func (l Log) open() (generations, error) {
	dir, err := again(func() (*os.Root, error) { return l.Root.OpenRoot(l.Dir) })
	if err != nil {
		return generations{}, fmt.Errorf("cannot read the claims: %w", err)
	}
	return generations{dir}, nil
}

func (g generations) close() { g.dir.Close() }

func claimName(n int) string { return strconv.Itoa(n) }

func beatName(n int) string { return strconv.Itoa(n) + ".beat" }

// parseGeneration reads the name of a claim.
func parseGeneration(s string) (n int, ok bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n > 0 && n <= maxGeneration && claimName(n) == s
}

// newest lists the log and returns the highest generation, at least from.
func (g generations) newest(from int) (int, error) {
	names, err := again(func() ([]string, error) { return durable.Names(g.dir, ".") })
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
	_, err := again(func() (fs.FileInfo, error) { return g.dir.Lstat(claimName(n)) })
	if err != nil && !absent(err) {
		return false, fmt.Errorf("cannot look for generation %d: %w", n, err)
	}
	return err == nil, nil
}

// read returns a claim, or of one that is gone or damaged its number only.
func (g generations) read(n int) (record, error) {
	data, err := g.content(claimName(n))
	if err != nil {
		return record{}, fmt.Errorf("cannot read generation %d: %w", n, err)
	}
	var r record
	if json.Unmarshal(data, &r) != nil {
		r = record{}
	}
	r.Generation = n
	return r, nil
}

// beat returns the latest sign of life of a holder, empty if it has given none
// since it claimed.
func (g generations) beat(n int) (string, error) {
	data, err := g.content(beatName(n))
	if err != nil {
		return "", fmt.Errorf("cannot read the sign of life of generation %d: %w", n, err)
	}
	if len(data) > 0 {
		return string(data), nil
	}
	target, err := again(func() (string, error) { return g.dir.Readlink(beatName(n)) })
	if err != nil && !absent(err) && !errors.Is(err, syscall.EINVAL) {
		return "", fmt.Errorf("cannot read the sign of life of generation %d: %w", n, err)
	}
	return target, nil
}

// content returns the beginning of a file, or nothing if there is no such file or
// its place is taken by something that is no file.
func (g generations) content(name string) ([]byte, error) {
	data, err := again(func() ([]byte, error) {
		f, err := g.dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		// One read: it is enough for what holders write, and another one would only
		// cost a request to see the end.
		data := make([]byte, maxContent)
		n, err := readNow(f, data)
		return data[:max(n, 0)], err
	})
	if err == nil {
		return data, nil
	}
	if absent(err) {
		return nil, nil
	}
	if info, statErr := g.dir.Lstat(name); statErr == nil && !info.Mode().IsRegular() {
		return nil, nil
	}
	return nil, err
}

// readNow is read(2) that does not wait if the file is a pipe. To ask whether it is one
// would cost a request.
func readNow(f *os.File, data []byte) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	rawErr := raw.Read(func(fd uintptr) bool {
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			n, err = unix.Read(int(fd), data)
		}
		return true
	})
	return n, cmp.Or(err, rawErr)
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
	err = durable.Create(g.dir, claimName(r.Generation), append(data, '\n'))
	if full(err) {
		// A full volume must not keep away the one who could make room on it.
		err = durable.Create(g.dir, claimName(r.Generation), nil)
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
	beat := beatName(n)
	tmp := "." + beat
	write := func() error {
		err := durable.Write(g.dir, tmp, []byte(sign))
		if err == nil && sign == released {
			// A full volume may lose it and say nothing.
			if there, readErr := g.content(tmp); readErr == nil && string(there) != sign {
				err = syscall.ENOSPC
			}
		}
		if full(err) {
			// A short symbolic link needs no space. Others must hear at once of a holder
			// that gives up for want of it.
			g.dir.Remove(tmp)
			err = g.dir.Symlink(sign, tmp)
		}
		if err != nil {
			return err
		}
		return g.dir.Rename(tmp, beat)
	}
	err := write()
	if err == nil {
		return nil
	}
	// A network file system may report a failure after success.
	if there, readErr := g.beat(n); readErr == nil && there == sign {
		return nil
	}
	// Something else in its place would silence a holder that lives.
	for _, name := range []string{tmp, beat} {
		if info, statErr := g.dir.Lstat(name); statErr == nil && !info.Mode().IsRegular() && g.dir.RemoveAll(name) == nil {
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
	names, err := durable.Names(g.dir, ".")
	if err != nil {
		return
	}
	for _, s := range names {
		number, _, _ := strings.Cut(strings.TrimPrefix(s, "."), ".")
		if n, ok := parseGeneration(number); ok && n <= newest-kept {
			g.dir.Remove(s)
		}
	}
}

// again repeats what failed with ESTALE, which a network file system says once of
// a name that was replaced meanwhile.
func again[T any](f func() (T, error)) (T, error) {
	v, err := f()
	if errors.Is(err, syscall.ESTALE) {
		v, err = f()
	}
	return v, err
}

// absent tells whether an error means that there is no such name. After any other
// error nobody knows.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESTALE)
}

func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
