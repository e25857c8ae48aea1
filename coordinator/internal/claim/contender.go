package claim

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	mathrand "math/rand/v2"
	"sync"
	"time"
)

// A contender makes three kinds of looks. On a network file system each is one or
// more requests to the server, so it makes them as rarely as it can: at first after
// the shorter of two pauses, since what is waited for may end soon, and in the end
// after the longer one.
//
//   - The caller looks at what it waits for. That should be two requests or so.
//   - The sign of life of the holder needs eight requests, and six looks a lease.
//   - Whether the lock of the holder is free is one request. It is the only way to
//     notice within seconds that a holder died.
//
// While a holder works that is five requests a second with DefaultLease, and eight
// in the first 20 s. Where changes are told by a channel, what is waited for and the
// sign of life are looked at then, too; the lock of a dead holder is told by nobody.
const (
	waitMin, waitMax       = 100 * time.Millisecond, time.Second
	observeMin, observeMax = time.Second, DefaultLease / looksPerLease
	lockMin, lockMax       = time.Second, 3 * time.Second
)

// looksPerLease is how often a contender looks at the sign of life within a lease.
const looksPerLease = 6

// contender has what a process needs that wants the claim.
type contender struct {
	log      Log
	me       Holder
	boot     string      // see Log.boot
	dir      generations // open since the log was last listed
	lock     *lock       // open for the next attempt, or nil
	lockless bool        // flock is of no use here
	report   sync.Once   // what flock is worth
}

func (l Log) contender(me Holder) *contender {
	return &contender{log: l, me: me, boot: l.boot(), lockless: l.Lockless}
}

func (s *contender) close() {
	s.lock.close()
	if s.dir.Root != nil {
		s.dir.Close()
	}
}

// contend returns the claim as soon as it can be had. Until then it calls wait before
// each look at the log but the first; an error of wait ends it.
func (l Log) contend(ctx context.Context, me Holder, wait func(evidence) error) (*Claim, error) {
	s := l.contender(me)
	defer s.close()
	start, woken := time.Now(), false
	c, e, err := s.attempt(ctx, evidence{patience: boundedLease(l.Lease.Milliseconds())}, false)
	observeAt, lockAt := start.Add(e.nextLook(0)), start.Add(lockMin)
	for errors.Is(err, ErrHeld) {
		// First, so that nobody claims what has become needless.
		if err := wait(e); err != nil {
			return nil, err
		}
		if now := time.Now(); woken || !now.Before(observeAt) {
			c, e, err = s.observe(ctx, e)
			observeAt = now.Add(e.nextLook(now.Sub(start)))
		}
		if now := time.Now(); errors.Is(err, ErrHeld) && !e.gotLock && !s.lockless && !now.Before(lockAt) {
			c, e, err = s.attempt(ctx, e, true)
			lockAt = now.Add(pace(now.Sub(start), lockMin, lockMax))
		}
		if !errors.Is(err, ErrHeld) {
			break
		}
		// Each waits for times of its own, so that many do not look at once.
		pause := pace(time.Since(start), waitMin, waitMax)
		pause += mathrand.N(pause/4) - pause/8
		// Rather one round a little later than two in a row.
		if left := time.Until(observeAt); left < pause*3/2 {
			pause = left
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
			woken = false
		case <-l.Changed:
			woken = true
		}
	}
	return c, err
}

// pace returns the pause before the next look of a kind: half of what was waited
// already, within bounds.
func pace(waited, shortest, longest time.Duration) time.Duration {
	return min(max(waited/2, shortest), longest)
}

// nextLook returns the pause before the next look at the sign of life: not past the
// moment when the holder counts as dead.
func (e evidence) nextLook(waited time.Duration) time.Duration {
	longest := min(observeMax, e.lease()/looksPerLease)
	pause := pace(waited, min(observeMin, longest), longest)
	if left := e.lease() - e.silent; left > 0 {
		return min(pause, left)
	}
	return pause
}

// observe looks at the sign of life, and makes an attempt if that promises to
// succeed.
func (s *contender) observe(ctx context.Context, e evidence) (*Claim, evidence, error) {
	o, err := s.look(e)
	if err != nil {
		return nil, e, err
	}
	if e = s.learn(e, o); e.judge(s.boot) == held {
		return nil, e, ErrHeld
	}
	return s.attempt(ctx, e, false)
}

// attempt tries to get the lock, and then the claim if a look at the whole log allows
// it; where the lock is needed, only if it got that. The lock goes to the claim or is
// given back.
func (s *contender) attempt(ctx context.Context, e evidence, needsLock bool) (c *Claim, _ evidence, err error) {
	l, outcome, err := s.tryLock(ctx)
	if err != nil {
		return nil, e, err
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	o := e.observation
	if needsLock && outcome != obtained {
		o.lock = outcome
		return nil, s.learn(e, o), ErrHeld
	}
	if o, err = s.lookAtAll(e); err != nil {
		return nil, e, err
	}
	o.lock, o.inode = outcome, l.inode()
	e = s.learn(e, o)
	v := e.judge(s.boot)
	if v == held {
		return nil, e, ErrHeld
	}
	c, err = s.claim(e, v, l)
	return c, e, err
}

// tryLock returns the lock if it was obtained. What was refused stays open for the
// next attempt.
func (s *contender) tryLock(ctx context.Context) (*lock, lockOutcome, error) {
	if s.lockless {
		return nil, untried, nil
	}
	if s.lock == nil {
		// The file may have to be made.
		if err := s.log.Guard("lock"); err != nil {
			return nil, untried, err
		}
	}
	l, outcome := s.log.tryLock(s.lock)
	s.lock = nil
	if outcome == refused {
		s.lock, l = l, nil
	}
	s.lockless = outcome == untried
	if ctx.Err() != nil {
		l.close()
		return nil, untried, ctx.Err()
	}
	return l, outcome, nil
}

// learn adds an observation to the evidence. What the flock is seen to be worth is
// reported at most once; if that is nothing, it is not tried again.
func (s *contender) learn(e evidence, o observation) evidence {
	e = e.with(o)
	if exclusive, known := e.lockSemantics(s.boot); known {
		s.lockless = s.lockless || !exclusive
		s.report.Do(func() { s.log.ReportLockSemantics(exclusive) })
	}
	return e
}

// lookAtAll opens and lists the log before it looks at the newest generation.
func (s *contender) lookAtAll(e evidence) (observation, error) {
	g, err := s.log.open()
	if err != nil {
		return observation{}, err
	}
	if s.dir.Root != nil {
		s.dir.Close()
	}
	s.dir = g
	n, err := g.newest(e.generation)
	if err != nil {
		return observation{}, err
	}
	return s.lookAt(n, e)
}

// look looks at the newest generation that follows the one in the evidence.
func (s *contender) look(e evidence) (observation, error) {
	n, err := s.dir.follow(e.generation)
	if err != nil {
		return observation{}, err
	}
	o, err := s.lookAt(n, e)
	if err != nil || n == 0 || o.sign != o.record.Nonce {
		return o, err
	}
	// No sign of life since the claim, or both were pruned while this process slept.
	if there, err := s.dir.exists(n); err != nil || there {
		return o, err
	}
	return s.lookAtAll(e)
}

// lookAt looks at generation n. What the evidence has of it is not read again.
func (s *contender) lookAt(n int, e evidence) (o observation, err error) {
	o = observation{generation: n, record: e.record}
	if n > 0 && (n != e.generation || o.record.Nonce == "") {
		if o.record, err = s.dir.read(n); err != nil {
			return o, err
		}
	}
	if n > 0 {
		o.sign, err = s.dir.content(beatName(n))
	}
	o.sign, o.at = cmp.Or(o.sign, o.record.Nonce), time.Now()
	return o, err
}

// claim makes the next generation.
func (s *contender) claim(e evidence, v verdict, l *lock) (*Claim, error) {
	if err := s.log.Guard("claim"); err != nil {
		return nil, err
	}
	r := record{Holder: s.me, Nonce: rand.Text(), LeaseMS: boundedLease(s.log.Lease.Milliseconds()).Milliseconds(), Boot: s.boot, Flock: l.inode()}
	r.Generation = e.generation + 1
	if err := s.dir.create(r); err != nil {
		return nil, err
	}
	c := &Claim{
		log: s.log, record: r, lock: l,
		lost: make(chan struct{}), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	// If this process has slept since it looked, the number is an old one whose
	// file was removed.
	if err := c.Check(); err != nil {
		s.dir.setBeat(r.Generation, released)
		if errors.Is(err, ErrFenced) {
			err = ErrHeld
		}
		return nil, err
	}
	writeName(s.log.Root, s.log.Name, r.Holder)
	s.dir.prune(r.Generation)
	what := lockOf(s.me)
	switch {
	case v == died:
		s.log.info("Took over %s from %s: its process has died", what, unitName(e.record.Holder))
	case v == silent && !e.free():
		s.log.info("Took over %s from %s: it was silent for %s", what, unitName(e.record.Holder), e.lease())
	}
	s.log.info("Acquired %s (generation %d)", what, r.Generation)
	go c.renew()
	return c, nil
}
