package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
)

// received is the buffer of a connection, as large as the transport's.
const received = 256 << 10

// connection fetches one part of an archive after another.
type connection struct {
	id      int
	remote  *remote
	partial *partial
}

// run fetches until nothing is left, first what the answer holds, if there is
// one. An error ends the download: it is none if other connections go on.
func (c connection) run(ctx context.Context, a *answer) error {
	policy := c.remote.source.Policy
	buf := make([]byte, received)
	var useless error // why the stream broke off that had little that is new
	for broken := 0; ; a = nil {
		if a == nil {
			var claim span
			c.partial.locked(func(p *plan) { claim = p.next(c.id, c.remote.sequential.Load()) })
			if claim.empty() {
				return nil
			}
			if useless != nil && !c.affords(claim.Start) {
				return c.leave(c.brokeOff(useless))
			}
			var err error
			if a, err = c.remote.ask(ctx, claim); err != nil {
				return c.leave(err)
			}
		}
		moved, err := c.receive(a, buf)
		a.close()
		if moved >= a.received/8 {
			useless = nil
		} else if err != nil {
			useless = err
		}
		switch {
		case err == nil:
			broken = 0
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case hopeless(err):
			return err
		}
		c.remote.forget(a.location)
		if moved > policy.Rate*int64(policy.Stall/time.Second) {
			broken = 0
		}
		if broken++; broken >= policy.Attempts {
			return c.leave(c.brokeOff(err))
		}
		c.partial.locked(func(p *plan) { p.giveBack(c.id) })
		if err := sleep(ctx, c.remote.source.pause(broken, nil)); err != nil {
			return err
		}
	}
}

// affords tells whether a stream that broke off, and had little that is new, may be
// taken up again at a byte. A server that ignores ranges sends all bytes before it once
// more: what is received for nothing is at most half of an archive.
func (c connection) affords(start int64) (ok bool) {
	if !c.remote.ignores.Load() && !c.remote.refuses.Load() {
		return true
	}
	c.partial.locked(func(p *plan) { ok = 2*(c.partial.wasted.Load()+start) <= max(p.size, p.There.bytes()) })
	return ok
}

func (c connection) brokeOff(err error) error {
	var text string
	c.partial.locked(func(p *plan) { text = fmt.Sprintf("broke off after %d of %d bytes", p.There.bytes(), p.size) })
	return unreachable(c.remote.url, fmt.Errorf("%s: %w", text, err))
}

// hopeless tells whether another attempt would come to the same end.
func hopeless(err error) bool {
	var local *fs.PathError
	return errors.As(err, &local) || errors.Is(err, unpack.ErrNotArchive) || errors.Is(err, ErrTooLarge)
}

// leave lets others fetch what this connection could not. It returns err unless
// they go on: a server may have enough of several connections.
func (c connection) leave(err error) error {
	goOn := false
	c.partial.locked(func(p *plan) {
		delete(p.claims, c.id)
		goOn = len(p.claims) > 0
	})
	if goOn && !errors.Is(err, ErrChanged) && (errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnauthorized)) {
		return nil
	}
	return err
}

// receive writes what of an answer is missing and nobody else fetches, and
// returns how many bytes that were.
func (c connection) receive(a *answer, buf []byte) (moved int64, err error) {
	for pos := a.Start; ; {
		var claim span
		var size, present int64
		more := pos < a.End
		c.partial.locked(func(p *plan) {
			size, present = p.size, p.There.bytes()
			if more {
				claim = p.claim(c.id, pos)
			}
		})
		if more && claim.empty() {
			return moved, nil // nobody needs what comes
		}
		end := pos + int64(len(buf))
		write := more && pos >= claim.Start
		switch {
		case write:
			end = min(end, a.End, claim.End)
		case more:
			end = min(end, a.End, claim.Start)
		}
		n, err := a.Read(buf[:end-pos])
		at := span{pos, pos + int64(n)}
		pos = at.End
		if !write {
			c.partial.wasted.Add(int64(n))
		}
		switch limit := c.remote.source.MaxBytes; {
		case n > 0 && !more:
			return moved, errors.New("it sent more than it announced")
		case limit > 0 && pos > limit:
			return moved, tooLarge(c.remote.url, limit)
		case n > 0 && write:
			if err := c.partial.write(buf[:n], at, pos == claim.End); err != nil {
				return moved, err
			}
			moved += int64(n)
		}
		switch {
		case err == io.EOF && size == 0 && pos == 0:
			return moved, fmt.Errorf("%s: %w: it is empty", redact(c.remote.url), unpack.ErrNotArchive)
		case err == io.EOF && size == 0 && pos >= present && (a.Size == 0 || a.Size == pos):
			return moved, c.partial.update(false, func(p *plan) { p.size = pos })
		case err == io.EOF && pos == a.End:
			return moved, nil
		case err == io.EOF:
			return moved, io.ErrUnexpectedEOF
		case err != nil:
			return moved, err
		}
	}
}

func tooLarge(url string, limit int64) error {
	return fmt.Errorf("%s: %w: more than %d bytes", redact(url), ErrTooLarge, limit)
}
