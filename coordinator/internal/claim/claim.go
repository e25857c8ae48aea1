// Package claim decides who downloads.
//
// Claims are numbered. The file N in the directory of claims is made by link(2)
// from a private file, so that of any number of contenders on any number of
// machines one gets generation N. Its holder writes a new nonce to N.beat four
// times a lease, and "done" when it gives up. A contender that has seen the same
// nonce for a whole lease takes the holder for dead and claims N+1; the lease is
// measured by the contender's monotonic clock alone, and no time of one machine
// is ever compared with one of another.
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
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
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

// Waiters look again after pollMin to pollMax, each at times of its own: a human
// does not notice the delay, and a hundred waiters look 700 times a second at
// most. Who is told of changes looks half as often, for what nobody tells of: the
// lock of a holder that died.
const (
	pollMin = 50 * time.Millisecond
	pollMax = 250 * time.Millisecond
)

// Generations that are kept in the log, for people. None of them is needed.
const kept = 8

// Holder is who holds a claim, or wants to.
type Holder struct {
	Unit       string    `json:"unit"` // empty for nobody
	Version    string    `json:"version"`
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
	// Lock, below Root, is the file for the flock. It names the holder, for
	// people, and is never removed: another file would be another lock.
	Lock string
	// Lease is how long a silent holder is taken to be alive.
	Lease time.Duration
	// Lockless leaves out the flock, where it is known to be of no use.
	Lockless bool
	// Changed, unless nil, gets a value when something may have changed, so that
	// who waits need not look as often.
	Changed <-chan struct{}
	// Witness, unless nil, is told when it shows what a flock is worth between
	// two machines: whether it kept one of them out while the other had it.
	Witness func(exclusive bool)
	// Guard is asked before each write, with what will be written ("lock",
	// "claim", "beat", "done"). An error prevents it.
	Guard func(step string) error
}

// record is the content of a claim.
type record struct {
	Holder
	Nonce string `json:"nonce"`
	Boot  string `json:"boot,omitempty"`  // of the kernel that the holder runs on
	Flock uint64 `json:"flock,omitempty"` // inode of the file it has locked
}

// released is what a beat says when its holder has given up.
const released = "done"

// Claim is held until Release, or until the process dies or falls silent.
type Claim struct {
	log     Log
	record  record
	lock    *lock // nil without
	lost    chan struct{}
	stop    chan struct{}
	stopped chan struct{}
}

// Acquire waits for the claim. While somebody else holds it, it calls wait with
// the holder, as far as it is known, and once more before each attempt; an error
// from wait ends the waiting and is returned as it is. So does the end of ctx.
func (l Log) Acquire(ctx context.Context, me Holder, wait func(Holder) error) (*Claim, error) {
	s := contender{log: l, me: me, lockless: l.Lockless}
	for pause := pollMin; ; pause = min(pause+pollMin, pollMax) {
		c, err := s.try(ctx)
		if !errors.Is(err, ErrHeld) {
			return c, err
		}
		if pause == pollMin {
			if err := wait(s.holder); err != nil {
				return nil, err
			}
		}
		delay := pollMin + mathrand.N(pause)*4/5
		if l.Changed != nil {
			delay *= 2
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(delay):
		case <-l.Changed:
		}
		// Last, so that nobody claims what has become needless.
		if err := wait(s.holder); err != nil {
			return nil, err
		}
	}
}

// Try takes the claim, or returns ErrHeld as soon as it sees that the holder
// lives. Where flock tells nothing that takes half a lease, and a whole lease to
// find the holder dead.
func (l Log) Try(ctx context.Context, me Holder) (*Claim, error) {
	s := contender{log: l, me: me, lockless: l.Lockless}
	for first := ""; ; {
		c, err := s.try(ctx)
		if !errors.Is(err, ErrHeld) || s.excluded {
			return c, err
		}
		if first == "" {
			first = s.key
		}
		if s.key != first {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pollMax):
		}
	}
}

// Holder returns who holds the newest generation, dead or alive; nobody if it
// was released.
func (l Log) Holder() (Holder, error) {
	n, err := l.newest(0)
	if err != nil || n == 0 {
		return Holder{}, err
	}
	if beat, err := l.Root.ReadFile(l.beat(n)); err == nil && string(beat) == released {
		return Holder{}, nil
	}
	return l.read(n).Holder, nil
}

// contender is what a process that wants the claim has seen so far.
type contender struct {
	log      Log
	me       Holder
	lockless bool   // flock does not work here: it is not tried again
	excluded bool   // the last attempt to lock was refused
	refused  int    // attempts to lock in a row that were refused
	robbed   string // what key was when this process got the lock that the holder had
	told     bool   // what the lock is worth

	last   record // of the newest generation
	holder Holder // nobody if it was released
	key    string // generation and nonce
	silent time.Duration
	looked time.Time
}

func (s *contender) try(ctx context.Context) (*Claim, error) {
	if err := s.log.guard("lock"); err != nil {
		return nil, err
	}
	held, err := s.flock(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.claim(held)
	if err != nil && held != nil {
		held.Close()
	}
	return c, err
}

func (s *contender) claim(held *lock) (*Claim, error) {
	free, err := s.look()
	if err != nil {
		return nil, err
	}
	s.testify(free, held)
	// Either nobody holds the claim and nobody is about to take it; or this
	// process has the very lock that the holder had; or there was not a sign of
	// life for a lease, be it from the holder or from who is about to claim.
	if !(free && !s.excluded) && !s.inherits(held) && s.silent < s.log.Lease {
		return nil, ErrHeld
	}
	if err := s.log.guard("claim"); err != nil {
		return nil, err
	}
	c := &Claim{
		log: s.log, record: record{Holder: s.me, Nonce: rand.Text(), Boot: Boot()}, lock: held,
		lost: make(chan struct{}), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	c.record.Generation = s.last.Generation + 1
	if held != nil {
		c.record.Flock = held.inode
	}
	data, err := json.Marshal(c.record)
	if err != nil {
		return nil, err
	}
	name := s.log.name(c.record.Generation)
	err = durable.Create(s.log.Root, name, append(data, '\n'))
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		// A full volume must not keep away the one who could make room on it.
		err = durable.Create(s.log.Root, name, nil)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, ErrHeld
	}
	if err != nil {
		return nil, fmt.Errorf("cannot claim: %w", err)
	}
	// The generation is an old one, and its file was removed, if this process
	// has slept since it looked.
	if err := c.Check(); err != nil {
		s.log.Root.Remove(name)
		if errors.Is(err, ErrFenced) {
			err = ErrHeld
		}
		return nil, err
	}
	c.name(c.record.Holder)
	s.log.prune(c.record.Generation)
	go c.renew()
	return c, nil
}

// flock returns the lock, or nil: refused, or of no use here.
func (s *contender) flock(ctx context.Context) (*lock, error) {
	s.excluded = false
	if s.lockless {
		return nil, nil
	}
	held, err := tryLock(ctx, s.log.Root, s.log.Lock)
	switch {
	case ctx.Err() != nil:
		if held != nil {
			held.Close()
		}
		return nil, ctx.Err()
	case errors.Is(err, ErrHeld):
		s.excluded = true
		s.refused++
	case err != nil:
		s.lockless = true
	}
	return held, nil
}

// look reads the newest generation, and measures how long it is silent.
func (s *contender) look() (free bool, err error) {
	n, err := s.log.newest(s.last.Generation)
	if err != nil {
		return false, err
	}
	if n != s.last.Generation || s.last.Nonce == "" {
		s.last = s.log.read(n)
	}
	nonce := s.last.Nonce
	if beat, err := s.log.Root.ReadFile(s.log.beat(n)); err == nil {
		nonce = string(beat)
	}
	free = n == 0 || nonce == released
	s.holder = s.last.Holder
	if free {
		s.holder = Holder{}
	}
	now := time.Now()
	if key := fmt.Sprint(n, " ", nonce); key != s.key {
		s.key, s.silent = key, 0
	} else {
		// Who was asleep has not been watching.
		s.silent += min(now.Sub(s.looked), 4*pollMax)
	}
	s.looked = now
	return free, nil
}

// testify tells what the flock is worth between this machine and the holder's:
// nothing if this process gets it and the holder gives a sign of life after
// that; and it keeps machines apart if it was refused several times in a row,
// which other contenders, who have it for a moment only, do not bring about.
func (s *contender) testify(free bool, held *lock) {
	if s.told || s.log.Witness == nil || free || s.last.Boot == "" || s.last.Boot == Boot() {
		return
	}
	generation, _, _ := strings.Cut(s.robbed, " ")
	switch {
	case s.robbed != "" && s.robbed != s.key && generation == strconv.Itoa(s.last.Generation):
		s.told = true
		s.log.Witness(false)
	case held != nil && held.inode == s.last.Flock:
		s.robbed = s.key
	case held == nil && s.refused >= enoughRefusals && s.last.Flock != 0:
		s.told = true
		s.log.Witness(true)
	}
}

// enoughRefusals in a row are not the work of contenders alone.
const enoughRefusals = 4

// inherits tells whether a lock proves that the last holder is dead: it had the
// lock, too, and its lock kept others out. On one kernel it did; between two
// machines only if this process was kept out before, and more often than by
// another contender, which has the lock for a moment only.
func (s *contender) inherits(held *lock) bool {
	refused := s.refused
	if held != nil {
		s.refused = 0
	}
	if held == nil || held.inode != s.last.Flock {
		return false
	}
	return s.last.Boot != "" && s.last.Boot == Boot() || refused >= enoughRefusals
}

// Generation numbers the claims, each higher than those before.
func (c *Claim) Generation() int { return c.record.Generation }

// Lost is closed when the claim is found to be lost, which takes a quarter of a
// lease, or longer if this process sleeps.
func (c *Claim) Lost() <-chan struct{} { return c.lost }

// Check returns ErrFenced if a later generation was claimed.
func (c *Claim) Check() error {
	n, err := c.log.newest(c.record.Generation)
	if err != nil {
		return err
	}
	if n != c.record.Generation {
		h := c.log.read(n).Holder
		return fmt.Errorf("%w: %s has generation %d, this is %d", ErrFenced, h.Unit, n, c.record.Generation)
	}
	return nil
}

// Release gives the claim up, so that the next one need not wait, and takes the
// holder's name out of the lock file.
func (c *Claim) Release() error {
	close(c.stop)
	<-c.stopped
	err := c.log.guard("done")
	if err == nil {
		err = c.beat(released)
	}
	if err == nil {
		if h, err := Read(c.log.Root, c.log.Lock); err == nil && h.Generation == c.record.Generation {
			c.name(Holder{Generation: h.Generation})
		}
	}
	if c.lock != nil {
		c.lock.Close()
	}
	return err
}

// renew shows that the holder lives, until it is stopped or has lost the claim.
func (c *Claim) renew() {
	defer close(c.stopped)
	for {
		select {
		case <-c.stop:
			return
		case <-time.After(c.log.Lease / 4):
		}
		if errors.Is(c.Check(), ErrFenced) {
			close(c.lost)
			return
		}
		// Whatever is wrong, the work itself will meet it; a claim that is not
		// renewed only ends.
		if c.log.guard("beat") == nil {
			c.beat(rand.Text())
		}
	}
}

// beat replaces the nonce. It is of no use after a power cut, and not synced.
func (c *Claim) beat(nonce string) error {
	root, name := c.log.Root, c.log.beat(c.record.Generation)
	tmp := path.Join(c.log.Dir, "."+path.Base(name))
	err := root.WriteFile(tmp, []byte(nonce), 0o644)
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		// Also if a network file system reports a failure after success.
		if there, readErr := root.ReadFile(name); readErr == nil && string(there) == nonce {
			return nil
		}
		return fmt.Errorf("cannot renew the claim: %w", err)
	}
	return nil
}

// name puts the holder into the lock file, in place. That it fails is no reason
// to give up: it is for people.
func (c *Claim) name(h Holder) {
	data, err := json.Marshal(h)
	if err != nil {
		return
	}
	f, err := c.log.Root.OpenFile(c.log.Lock, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	data = append(data, '\n')
	if _, err := f.WriteAt(data, 0); err == nil {
		f.Truncate(int64(len(data)))
	}
}

// Read returns what the lock file says: the holder, or who held it when it
// died. A lock file that is missing or half written is an error.
func Read(root *os.Root, lock string) (Holder, error) {
	var h Holder
	f, err := root.Open(lock)
	if err != nil {
		return h, fmt.Errorf("cannot read the holder: %w", err)
	}
	defer f.Close()
	// A decoder stops after one value: the tail of a longer, older one may follow.
	if err := json.NewDecoder(f).Decode(&h); err != nil {
		return Holder{}, fmt.Errorf("cannot read the holder in %s: %w", lock, err)
	}
	return h, nil
}

func (l Log) name(n int) string { return path.Join(l.Dir, strconv.Itoa(n)) }

func (l Log) beat(n int) string { return path.Join(l.Dir, strconv.Itoa(n)+".beat") }

func (l Log) guard(step string) error {
	if l.Guard == nil {
		return nil
	}
	return l.Guard(step)
}

// newest returns the highest generation, at least from.
func (l Log) newest(from int) (int, error) {
	names, err := durable.Names(l.Root, l.Dir)
	if err != nil {
		return 0, fmt.Errorf("cannot read the claims: %w", err)
	}
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			from = max(from, n)
		}
	}
	// A listing may be older than a name.
	for {
		if _, err := l.Root.Lstat(l.name(from + 1)); err != nil {
			return from, nil
		}
		from++
	}
}

// read returns a claim, or of one that is gone or empty, its number only.
func (l Log) read(n int) record {
	var r record
	if data, err := l.Root.ReadFile(l.name(n)); err == nil && json.Unmarshal(data, &r) != nil {
		r = record{}
	}
	r.Generation = n
	return r
}

// prune removes old generations, and what died before it got a name.
func (l Log) prune(newest int) {
	names, err := durable.Names(l.Root, l.Dir)
	if err != nil {
		return
	}
	for _, name := range names {
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "."), ".")
		if n, err := strconv.Atoi(number); err == nil && n <= newest-kept {
			l.Root.Remove(path.Join(l.Dir, name))
		}
	}
}
