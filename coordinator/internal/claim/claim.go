// Package claim decides who downloads.
//
// Claims are numbered. The file N in the directory of claims is made by link(2)
// from a private file, so that of any number of contenders on any number of
// machines one gets generation N. Its holder writes a new nonce to N.beat at least
// four times a lease, and "done" when it gives up. A contender that has seen the
// same nonce for a whole lease takes the holder for dead and claims N+1. The lease
// is the one that the holder has recorded in its claim. It is measured by the
// contender's monotonic clock alone, and no time of one machine is ever compared
// with one of another.
//
// A claim saves bandwidth and safeguards nothing by itself: a holder that was
// only asleep goes on when it wakes. It has to ask Check before it makes
// anything visible, and publishing by rename sorts out the rest.
//
// A flock on a file beside is a hint, where it works: who gets the lock that a
// holder had knows at once that the holder is dead. Where it fails, hangs, or
// excludes nobody, it is done without.
package claim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

var (
	// ErrHeld is returned by Try while another process holds the claim.
	ErrHeld = errors.New("claim is held")
	// ErrFenced: a later generation is claimed, so this one counts no more.
	ErrFenced = errors.New("claim was lost to another unit")
)

// DefaultLease is how long a silent holder is waited for where flock does not
// tell that it died. A holder renews four times in that time; writing back a
// release was seen to keep a disk busy for 19 s, and a holder that is only slow
// should not cost a second download.
const DefaultLease = 20 * time.Second

// Holder is who holds a claim, or wants to.
type Holder struct {
	Unit       string    `json:"unit"`    // empty for nobody
	Version    string    `json:"version"` // empty for who downloads nothing
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"` // by the holder's clock: for people only
	Generation int       `json:"generation"`
}

// Log is where the units that share a volume claim.
type Log struct {
	// Root is that of the volume.
	Root *os.Root
	// Dir, below Root, holds the generations. It must be there.
	Dir string
	// Lock, below Root, is the file for the flock. It may be in Dir. It is never
	// removed: another file would be another lock.
	Lock string
	// Name, below Root, is the file that names the holder, for people; see Read. It
	// may be the same as Lock, and several logs may share it. Empty for none.
	Name string
	// Lease is how long this process may be silent while it holds the claim. It is
	// recorded in the claim, and contenders keep to that. Less than 50 ms stands
	// for DefaultLease, more than 10 minutes for 10 minutes.
	Lease time.Duration
	// Turn has room for one value, and is that of all logs of the volume: while one
	// attempt to lock hangs, there is no other, and all do without. Nil is one of its own.
	Turn chan struct{}
	// Lockless leaves out the flock, where it is known to be of no use.
	Lockless bool
	// Changed, unless nil, gets a value when something may have changed in Dir or
	// in what the caller waits for, which is then looked at without delay.
	Changed <-chan struct{}
	// ReportLockSemantics, unless nil, is told what a flock is worth between two
	// machines, when that shows: whether it kept one of them out while the other
	// had it.
	ReportLockSemantics func(exclusive bool)
	// Guard is asked before each write, with what will be written ("lock",
	// "claim", "beat", "done"). An error prevents it.
	Guard func(step string) error
	// Logger is told who acquired, waited for, took over and released the claim.
	// Nil discards that.
	Logger *slog.Logger
}

// Acquire waits for the claim. While somebody else holds it, it calls wait with
// the holder, as far as it is known, and once more before each look at the log. An
// error from wait ends the waiting and is returned as it is. So does the end of
// ctx, and an error of the volume: after that nobody knows who holds the claim.
func (l Log) Acquire(ctx context.Context, me Holder, wait func(Holder) error) (*Claim, error) {
	s := l.contender(me)
	defer s.close()
	waitingFor := 0
	announce := func(e evidence) error {
		if !e.free() && e.generation != waitingFor {
			waitingFor = e.generation
			l.info("Waiting for %s, held by %s", lockOf(me.Version), unitName(e.record.Holder))
		}
		return nil
	}
	return s.contend(ctx, announce, wait)
}

// Try takes the claim, or returns ErrHeld as soon as it sees that the holder
// lives. Where flock tells nothing that takes half a lease, and a whole lease to
// find the holder dead.
func (l Log) Try(ctx context.Context, me Holder) (*Claim, error) {
	s := l.contender(me)
	defer s.close()
	var first *evidence
	untilAlive := func(e evidence) error {
		if first == nil {
			first = &e
		}
		if e.lock == refused || e.generation != first.generation || e.sign != first.sign {
			return ErrHeld
		}
		return nil
	}
	return s.contend(ctx, untilAlive, func(Holder) error { return nil })
}

// Holder returns who holds the newest generation, dead or alive; nobody if it
// was released.
func (l Log) Holder() (Holder, error) {
	g, err := l.open()
	if err != nil {
		return Holder{}, err
	}
	defer g.close()
	n, err := g.newest(0)
	if err != nil || n == 0 {
		return Holder{}, err
	}
	if beat, err := g.beat(n); err != nil || beat == released {
		return Holder{}, err
	}
	r, err := g.read(n)
	return r.Holder, err
}

func (l Log) guard(step string) error {
	if l.Guard == nil {
		return nil
	}
	return l.Guard(step)
}

func (l Log) info(format string, args ...any) {
	if l.Logger != nil {
		l.Logger.Info(fmt.Sprintf(format, args...))
	}
}

// lockOf is what the log calls the claim: people know it as a lock.
func lockOf(version string) string {
	if version == "" {
		return "the download lock"
	}
	return "the download lock for v" + version
}

func unitName(h Holder) string { return cmp.Or(h.Unit, "an unknown unit") }
