package unpack

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
)

// ratioFloor is what any archive may inflate to: small ones prove nothing.
const ratioFloor = 64 << 20

// source is the archive. It hears ctx where gzip reads on without an end, as in empty
// members, and ends ctx for the reason for which the stream ended early. The inflating
// goroutine reads it.
type source struct {
	ctx  context.Context
	fail context.CancelCauseFunc
	r    io.Reader
	read atomic.Int64
}

func (s *source) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	n, err := s.r.Read(p)
	s.read.Add(int64(n))
	if err != nil && err != io.EOF {
		s.fail(err)
	}
	return n, err
}

// inflated is what gzip makes of the source. All that tar reads goes through it,
// headers and contents alike, so that no kind of entry escapes the limits or ctx.
type inflated struct {
	r      io.Reader
	src    *source
	limits Limits
	bytes  int64
}

func (i *inflated) Read(p []byte) (int, error) {
	if i.src.ctx.Err() != nil {
		return 0, context.Cause(i.src.ctx)
	}
	n, err := i.r.Read(p)
	i.bytes += int64(n)
	if i.bytes > i.limits.Bytes {
		return 0, fmt.Errorf("%w: more than %d bytes unpacked", ErrNotArchive, i.limits.Bytes)
	}
	if i.bytes > ratioFloor && i.bytes/i.limits.Ratio > i.src.read.Load() {
		return 0, fmt.Errorf("%w: it unpacks to more than %d times its size", ErrNotArchive, i.limits.Ratio)
	}
	return n, err
}
