package claim

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

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
	defer g.close()
	n, err := g.newest(c.record.Generation)
	if err != nil {
		return err
	}
	if n == c.record.Generation {
		return nil
	}
	later, err := g.read(n)
	if err != nil {
		later = record{} // only its name is missing
	}
	return fmt.Errorf("%w: %s has generation %d, this is %d", ErrFenced, unitName(later.Holder), n, c.record.Generation)
}

// Release gives the claim up, so that the next one need not wait, and takes the
// holder's name out of the file that names it.
func (c *Claim) Release() error {
	close(c.stop)
	<-c.stopped
	defer c.lock.close()
	if err := c.log.guard("done"); err != nil {
		return err
	}
	if err := c.beat(released); err != nil {
		return err
	}
	c.removeName()
	c.log.info("Released %s", lockOf(c.record.Version))
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
		if c.log.guard("beat") == nil {
			c.beat(rand.Text())
		}
	}
}

func (c *Claim) beat(sign string) error {
	g, err := c.log.open()
	if err != nil {
		return err
	}
	defer g.close()
	return g.setBeat(c.record.Generation, sign)
}

// removeName takes this holder out of the file Log.Name, unless that names
// another one: the logs of several versions may share the file.
func (c *Claim) removeName() {
	if c.log.Name == "" {
		return
	}
	h, err := Read(c.log.Root, c.log.Name)
	if err == nil && h.Version == c.record.Version && h.Generation == c.record.Generation && h.Unit == c.record.Unit {
		writeName(c.log.Root, c.log.Name, Holder{Version: h.Version, Generation: h.Generation})
	}
}

// Read returns whom the file Log.Name names: the holder, or who held the claim
// when it died. A file that is missing or half written is an error.
func Read(root *os.Root, name string) (Holder, error) {
	f, err := durable.Open(root, name)
	if err != nil {
		return Holder{}, fmt.Errorf("cannot read the holder: %w", err)
	}
	defer f.Close()
	var h Holder
	// A decoder stops after one value: the tail of a longer, older one may follow.
	if err := json.NewDecoder(io.LimitReader(f, maxContent)).Decode(&h); err != nil {
		return Holder{}, fmt.Errorf("cannot read the holder in %s: %w", path.Base(name), err)
	}
	return h, nil
}

// writeName names a holder, in place: the file may be a lock, too, and another
// file would be another lock. That it fails is no reason to give up, since it is
// for people.
func writeName(root *os.Root, name string, h Holder) {
	data, err := json.Marshal(h)
	if err != nil {
		return
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	data = append(data, '\n')
	if _, err := f.WriteAt(data, 0); err == nil {
		f.Truncate(int64(len(data)))
	}
}
