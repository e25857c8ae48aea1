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
	id      int // from 1
	remote  *remote
	partial *partial
}

// run fetches until nothing is left, first what the answer holds, if there is
// one. An error ends the download: it is none if other connections go on.
func (c connection) run(ctx context.Context, a *answer) error {
	policy := c.remote.source.Policy
	buf := make([]byte, received)
	var last error
	fruitful := true // the stream that broke off has brought enough for its bytes
	for broken := 0; ; {
		if a == nil {
			start, end, ok := c.partial.next(c.id, c.remote.sequential())
			if !ok {
				return nil
			}
			if last != nil && !fruitful && !c.affords(start) {
				return c.leave(c.brokeOff(last))
			}
			var err error
			if a, err = c.remote.ask(ctx, start, end); err != nil {
				return c.leave(err)
			}
		}
		moved, err := c.receive(a, buf)
		a.close()
		fruitful = moved >= a.received/8
		location := a.location
		a = nil
		switch {
		case err == nil:
			broken = 0
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case hopeless(err):
			return err
		}
		last = err
		c.remote.forget(location)
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
	if !c.remote.ignoresRanges() {
		return true
	}
	wasted := c.partial.moved.Load() - c.partial.fresh.Load()
	c.partial.locked(func(p *plan) { ok = 2*(wasted+start) <= max(p.size, p.present) })
	return ok
}

func (c connection) brokeOff(err error) error {
	var present, size int64
	c.partial.locked(func(p *plan) { present, size = p.present, p.size })
	return fmt.Errorf("%s: %w: broke off after %d of %d bytes: %w", redact(c.remote.url), ErrUnreachable, present, size, err)
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
		p.giveBack(c.id)
		p.working--
		goOn = p.working > 0
	})
	if goOn && !errors.Is(err, ErrChanged) && (errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnauthorized)) {
		return nil
	}
	return err
}

// receive writes what of an answer is missing and nobody else fetches, and
// returns how many bytes that were.
func (c connection) receive(a *answer, buf []byte) (moved int64, err error) {
	limit := c.remote.source.MaxBytes
	for pos := a.start; ; {
		var u use
		var unknown bool
		c.partial.locked(func(p *plan) {
			if unknown = p.size == 0; pos < a.end {
				u = p.useOf(pos, c.id)
			}
		})
		if u.stop {
			return moved, nil
		}
		space := buf
		if pos < a.end {
			space = buf[:min(int64(len(buf)), a.end-pos, u.end-pos)]
		}
		n, err := a.body.Read(space)
		a.received += int64(n)
		c.partial.moved.Add(int64(n))
		if n > 0 && pos >= a.end {
			return moved, errors.New("it sent more than it announced")
		}
		if limit > 0 && pos+int64(n) > limit {
			return moved, tooLarge(c.remote.url, limit)
		}
		if n > 0 && u.write {
			fresh, err := c.partial.write(u.chunk, pos, buf[:n])
			moved += fresh
			if err != nil {
				return moved, err
			}
		}
		pos += int64(n)
		switch {
		case err == io.EOF && unknown && pos == 0:
			return moved, fmt.Errorf("%s: %w: it is empty", redact(c.remote.url), unpack.ErrNotArchive)
		case err == io.EOF && unknown && (a.size == 0 || a.size == pos):
			c.partial.end(pos)
			return moved, nil
		case err == io.EOF && pos == a.end:
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
