// Package claim decides who downloads.
//
// A claim saves bandwidth and nothing else: two holders at once would cost a
// second download, and publishing sorts them out. So a mount whose locks are
// worth nothing is slow, not wrong.
package claim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// ErrHeld is returned by Try while another process holds the claim.
var ErrHeld = errors.New("claim is held")

// Waiters look again after pollMin to pollMax: a human does not notice the
// delay, and a hundred waiters cost a file server 700 requests a second at most.
const (
	pollMin = 50 * time.Millisecond
	pollMax = 250 * time.Millisecond
)

// Holder is what the lock file says about its holder, as JSON.
type Holder struct {
	Unit       string    `json:"unit"` // empty after a release
	Version    string    `json:"version"`
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"` // by the holder's clock: for people only
	Generation int       `json:"generation"`
}

// Claim is held until Release, or until the process dies.
type Claim struct {
	lock   *flock.Flock
	holder Holder
}

// Acquire waits for the claim on the lock file at path. Before each pause it
// calls wait with the holder, as far as it is known; an error from wait ends
// the waiting and is returned as it is. So does the end of ctx.
func Acquire(ctx context.Context, path string, me Holder, wait func(Holder) error) (*Claim, error) {
	for {
		c, err := Try(path, me)
		if !errors.Is(err, ErrHeld) {
			return c, err
		}
		holder, _ := Read(path) // a holder between lock and write is nobody yet
		if err := wait(holder); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pollMin + rand.N(pollMax-pollMin)):
		}
	}
}

// Try takes the claim, or returns ErrHeld at once.
func Try(path string, me Holder) (*Claim, error) {
	// A writable descriptor, because NFS turns flock into a byte-range lock and
	// those are exclusive on writable descriptors only.
	lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o644))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", path, err)
	}
	if !ok {
		return nil, ErrHeld
	}
	// The path is never unlinked by this package. If somebody else did, the lock
	// is on a file that no contender can see.
	locked, err := lock.Stat()
	if err == nil {
		var named os.FileInfo
		if named, err = os.Stat(path); err == nil && !os.SameFile(locked, named) {
			err = ErrHeld
		}
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("cannot confirm the lock %s: %w", path, err)
	}
	last, _ := Read(path) // unreadable after a crash in mid-write: count from 0 again
	me.Generation = last.Generation + 1
	c := &Claim{lock: lock, holder: me}
	// A full volume must not keep away the one who could make room on it.
	if err := c.write(me); err != nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		lock.Close()
		return nil, err
	}
	return c, nil
}

// Generation numbers the holders of one lock file, each higher than those before.
func (c *Claim) Generation() int { return c.holder.Generation }

// Release gives the claim up and takes the holder's name out of the lock file.
func (c *Claim) Release() error {
	return errors.Join(c.write(Holder{Generation: c.holder.Generation}), c.lock.Close())
}

// Read returns what the lock file says: the holder, or who held it when it
// died. A lock file that is missing or half written is an error.
func Read(path string) (Holder, error) {
	var h Holder
	f, err := os.Open(path)
	if err != nil {
		return h, fmt.Errorf("cannot read the holder: %w", err)
	}
	defer f.Close()
	// A decoder stops after one value: the tail of a longer, older one may follow.
	if err := json.NewDecoder(f).Decode(&h); err != nil {
		return Holder{}, fmt.Errorf("cannot read the holder in %s: %w", path, err)
	}
	return h, nil
}

// write replaces the content in place: a new file would be a new lock.
func (c *Claim) write(h Holder) error {
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(c.lock.Path(), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot name the holder: %w", err)
	}
	data = append(data, '\n')
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Truncate(int64(len(data)))
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("cannot name the holder in %s: %w", c.lock.Path(), err)
	}
	return nil
}
