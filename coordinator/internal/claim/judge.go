package claim

import "time"

// released is what the latest sign of life says when a holder has given up.
const released = "done"

// enoughRefusals in a row are not the work of contenders, which have the lock for
// a moment only: it is the holder who keeps others out.
const enoughRefusals = 4

// lockOutcome is what an attempt to lock came to.
type lockOutcome int

const (
	untried  lockOutcome = iota // also where flock does not work
	refused                     // somebody else has the lock
	obtained                    // this process has the lock
)

// observation is one look at the log.
type observation struct {
	at         time.Time // by this machine's monotonic clock
	generation int       // the newest; 0 if there is none
	record     record    // of that generation
	sign       string    // the latest sign of life: a nonce, or released
	lock       lockOutcome
	inode      uint64 // of the lock that was obtained
}

func (o observation) free() bool { return o.generation == 0 || o.sign == released }

// evidence is what a contender has seen so far: the latest observation, and what
// those before add to it.
type evidence struct {
	observation
	patience time.Duration // with who has the lock and is about to claim
	silent   time.Duration // how long the sign of life was watched and did not change
	refusals int           // attempts to lock in a row that were refused, in this generation
	gotLock  bool          // this process got the lock in this generation: other attempts tell nothing new
	lockedAt string        // the sign of life when this process got the lock that the holder has
}

// holder returns who holds the claim, as far as it is known; nobody if it is free.
func (e evidence) holder() Holder {
	if e.free() {
		return Holder{}
	}
	return e.record.Holder
}

// lease returns how long there may be no sign of life: from a holder as long as it
// has recorded.
func (e evidence) lease() time.Duration {
	if e.free() {
		return e.patience
	}
	return e.record.lease()
}

// with adds an observation.
func (e evidence) with(o observation) evidence {
	next := evidence{observation: o, patience: e.patience}
	if o.generation == e.generation {
		next.refusals, next.gotLock, next.lockedAt = e.refusals, e.gotLock, e.lockedAt
		if o.sign == e.sign && !e.at.IsZero() {
			// A machine that was asleep between two looks has not been watching. Looks
			// that are on time are less than a quarter of a lease apart.
			next.silent = e.silent + min(o.at.Sub(e.at), e.lease()/4)
		}
		if e.lock == obtained {
			next.refusals = 0
		}
	}
	switch o.lock {
	case obtained:
		next.gotLock = true
		if next.lockedAt == "" && o.inode == o.record.Flock {
			next.lockedAt = o.sign
		}
	case refused:
		next.refusals++
	}
	return next
}

// verdict says whether a contender may claim the next generation, and why.
type verdict int

const (
	held   verdict = iota // it must wait
	vacant                // nobody holds the claim, and nobody is about to take it
	died                  // this process has the lock that the holder had until it died
	silent                // no sign of life for a lease, from the holder or from who is about to claim
)

// judge says what the evidence allows a process of the kernel and mount boot.
func (e evidence) judge(boot string) verdict {
	switch {
	case e.free() && e.lock != refused:
		return vacant
	case e.lock == obtained && e.provesDeath(boot):
		return died
	case e.silent >= e.lease():
		return silent
	}
	return held
}

// provesDeath tells whether the lock that was obtained can only be free because
// the holder is dead. The holder had this lock, and its lock kept others out: on
// one kernel that is certain, between two machines only if it was seen.
func (e evidence) provesDeath(boot string) bool {
	if e.inode != e.record.Flock {
		return false
	}
	return e.record.Boot != "" && e.record.Boot == boot || e.refusals >= enoughRefusals
}

// lockSemantics tells what a flock is worth between this machine and that of the
// holder, if the evidence shows it. The flock excludes nobody if this process got
// the holder's lock and the holder lived on. It does exclude if this process was
// refused more often than contenders bring about.
func (e evidence) lockSemantics(boot string) (exclusive, known bool) {
	switch {
	case e.free() || e.record.Boot == "" || e.record.Boot == boot:
		return false, false
	case e.lockedAt != "" && e.lockedAt != e.sign:
		return false, true
	case e.lock == refused && e.refusals >= enoughRefusals && e.record.Flock != 0:
		return true, true
	}
	return false, false
}

// A recorded lease out of these bounds is damage. One that is too short would take
// the claim from a holder that lives, one that is too long would hold up everybody.
const (
	minLease = 50 * time.Millisecond
	maxLease = 10 * time.Minute
)

// boundedLease returns the lease that a number of milliseconds stands for. Holder and
// contenders use it alike.
func boundedLease(ms int64) time.Duration {
	if ms < minLease.Milliseconds() {
		return DefaultLease
	}
	return time.Duration(min(ms, maxLease.Milliseconds())) * time.Millisecond
}
