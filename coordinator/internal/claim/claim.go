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
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
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
	// Dir, below Root, holds the generations, and the file for the flock. It must be
	// there.
	Dir string
	// Name, below Root, is the file that names the holder, for people; see Read.
	// Several logs may share it.
	Name string
	// Lease is how long this process may be silent while it holds the claim. It is
	// recorded in the claim, and contenders keep to that. Less than 50 ms stands
	// for DefaultLease, more than 10 minutes for 10 minutes.
	Lease time.Duration
	// Turn has room for one value, and is that of all logs of the volume: while one
	// attempt to lock hangs, there is no other, and all do without.
	Turn chan struct{}
	// Lockless leaves out the flock, where it is known to be of no use.
	Lockless bool
	// Changed, unless nil, gets a value when something may have changed in Dir or
	// in what the caller waits for, which is then looked at without delay.
	Changed <-chan struct{}
	// ReportLockSemantics is told what a flock is worth between two machines, when that
	// shows: whether it kept one of them out while the other had it.
	ReportLockSemantics func(exclusive bool)
	// Guard is asked before each write, with what will be written ("lock",
	// "claim", "beat", "done"). An error prevents it.
	Guard func(step string) error
	// Logger is told who acquired, waited for, took over and released the claim.
	Logger *slog.Logger
}

// Acquire waits for the claim. While somebody else holds it, it calls wait with
// the holder, as far as it is known, and once more before each look at the log. An
// error from wait ends the waiting and is returned as it is. So does the end of
// ctx, and an error of the volume: after that nobody knows who holds the claim.
func (l Log) Acquire(ctx context.Context, me Holder, wait func(Holder) error) (*Claim, error) {
	waitingFor := 0
	return l.contend(ctx, me, func(e evidence) error {
		if err := wait(e.holder()); err != nil {
			return err
		}
		if !e.free() && e.generation != waitingFor {
			waitingFor = e.generation
			l.info("Waiting for %s, held by %s", lockOf(me), unitName(e.record.Holder))
		}
		return nil
	})
}

// Try takes the claim, or returns ErrHeld as soon as it sees that the holder
// lives. Where flock tells nothing that takes half a lease, and a whole lease to
// find the holder dead.
func (l Log) Try(ctx context.Context, me Holder) (*Claim, error) {
	var first *evidence
	return l.contend(ctx, me, func(e evidence) error {
		if first == nil {
			first = &e
		}
		if e.lock == refused || e.generation != first.generation || e.sign != first.sign {
			return ErrHeld
		}
		return nil
	})
}

// Holder returns who holds the newest generation, dead or alive; nobody if it
// was released.
func (l Log) Holder() (Holder, error) {
	s := l.contender(Holder{})
	defer s.close()
	o, err := s.lookAtAll(evidence{})
	if err != nil {
		return Holder{}, err
	}
	return evidence{observation: o}.holder(), nil
}

func (l Log) info(format string, args ...any) { l.Logger.Info(fmt.Sprintf(format, args...)) }

// Claim is held until Release, or until the process dies or falls silent.
type Claim struct {
	log     Log
	record  record
	lock    *lock // nil without
	lost    chan struct{}
	stop    chan struct{}
	stopped chan struct{}
}

// Generation numbers the claims, each higher than those before.
func (c *Claim) Generation() int { return c.record.Generation }

// Lost is closed when the claim is found to be lost, which takes a quarter of a
// lease, or longer if this process sleeps.
func (c *Claim) Lost() <-chan struct{} { return c.lost }

// Check returns ErrFenced if a later generation was claimed, and another error if
// that cannot be found out. After either the holder must not publish.
func (c *Claim) Check() error {
	g, err := c.log.open()
	if err != nil {
		return err
	}
	defer g.Close()
	n, err := g.newest(c.record.Generation)
	if err != nil || n == c.record.Generation {
		return err
	}
	later, _ := g.read(n) // at worst its name is missing
	return fmt.Errorf("%w: %s has generation %d, this is %d", ErrFenced, unitName(later.Holder), n, c.record.Generation)
}

// Release gives the claim up, so that the next one need not wait, and takes the
// holder's name out of the file that names it.
func (c *Claim) Release() error {
	close(c.stop)
	<-c.stopped
	defer c.lock.close()
	if err := c.beat("done", released); err != nil {
		return err
	}
	removeName(c.log.Root, c.log.Name, c.record.Holder)
	c.log.info("Released %s", lockOf(c.record.Holder))
	return nil
}

// renew shows that the holder lives, until it is stopped or has lost the claim.
func (c *Claim) renew() {
	defer close(c.stopped)
	// Contenders that cannot read the record wait for DefaultLease only.
	pause := min(c.record.lease(), DefaultLease) / 4
	for {
		select {
		case <-c.stop:
			return
		case <-time.After(pause):
		}
		if errors.Is(c.Check(), ErrFenced) {
			close(c.lost)
			return
		}
		// Whatever is wrong, the work itself will meet it; a claim that is not
		// renewed only ends.
		c.beat("beat", rand.Text())
	}
}

func (c *Claim) beat(step, sign string) error {
	if err := c.log.Guard(step); err != nil {
		return err
	}
	g, err := c.log.open()
	if err != nil {
		return err
	}
	defer g.Close()
	return g.setBeat(c.record.Generation, sign)
}

// lockOf is what the log calls the claim: people know it as a lock.
func lockOf(h Holder) string {
	if h.Version == "" {
		return "the download lock"
	}
	return "the download lock for v" + h.Version
}

func unitName(h Holder) string { return cmp.Or(h.Unit, "an unknown unit") }

// Read returns whom the file Log.Name names: the holder, or who held the claim
// when it died. A file that is missing or half written is an error.
func Read(root *os.Root, name string) (h Holder, err error) {
	data, err := durable.ReadFile(root, name)
	if err == nil {
		// A decoder stops after one value: the tail of a longer, older one may follow.
		err = json.NewDecoder(bytes.NewReader(data)).Decode(&h)
	}
	if err != nil {
		return Holder{}, fmt.Errorf("cannot read the holder: %w", err)
	}
	return h, nil
}

// writeName names a holder, in place: whoever locks the file would have another lock in
// another file. That it fails is no reason to give up, since it is for people.
func writeName(root *os.Root, name string, h Holder) {
	if data, err := json.Marshal(h); err == nil {
		durable.Write(root, name, append(data, '\n'))
	}
}

// removeName takes a holder out of the file, unless that names another one: the logs
// of several versions may share it.
func removeName(root *os.Root, name string, h Holder) {
	named, err := Read(root, name)
	if err == nil && named.Version == h.Version && named.Generation == h.Generation && named.Unit == h.Unit {
		writeName(root, name, Holder{Version: h.Version, Generation: h.Generation})
	}
}
