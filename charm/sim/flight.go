package sim

import "time"

// flight is a call of the supervisor that takes a while. Its end is seen by the next look.
type flight struct {
	driver    *driver
	life      int
	cancelled bool
	over      bool
	err       error
}

// dead tells whether the supervisor that made the call is gone, and the call with it.
func (f *flight) dead() bool { return f.life != f.driver.lives }

func (f *flight) end(err error) {
	if f.over || f.dead() {
		return
	}
	f.over, f.err = true, err
	f.driver.lookSoon()
}

// attempt is one kind of call, which is tried until it succeeds: see attempt.go of the
// supervisor, which has the same rules.
type attempt struct {
	flight *flight
	failed int
	next   time.Duration
}

// busy tells whether a call is under way.
func (a *attempt) busy() bool {
	if a.flight != nil && a.flight.cancelled && a.flight.over {
		a.flight = nil
	}
	return a.flight != nil
}

// poll begins a call if it is time for one, and tells how the one under way has ended.
func (a *attempt) poll(d *driver, call func(*flight)) (done bool, err error) {
	a.busy()
	if a.flight != nil && a.flight.cancelled {
		return false, nil
	}
	if a.flight == nil {
		if d.unit.now < a.next {
			return false, nil
		}
		a.flight = &flight{driver: d, life: d.lives}
		call(a.flight)
	}
	if !a.flight.over {
		return false, nil
	}
	err = a.flight.err
	a.flight = nil
	if err == nil {
		a.failed = 0
		return true, nil
	}
	a.failed++
	a.next = d.unit.now + d.pause(a.failed)
	return false, err
}

func (a *attempt) giveUp() {
	if a.flight != nil {
		a.flight.cancelled = true
	}
	a.failed, a.next = 0, 0
}
