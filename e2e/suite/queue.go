package suite

import (
	"context"
	"io"
	"slices"
	"sync"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

// Queue runs scenarios, several at once where memory allows, each on a cluster of its
// own. `go test` and programs use it alike: they add all scenarios, and then wait for
// each of them.
type Queue struct {
	s   *Suite
	ctx context.Context
	out io.Writer

	start   sync.Once
	mu      sync.Mutex
	entries []*entry
}

// entry is a scenario in a queue.
type entry struct {
	Scenario
	slot   int // of its report
	report *report.Report
	ended  chan struct{}
}

// Queue returns an empty queue. When ctx ends, the scenarios that run are ended and
// cleaned up after, and the others do not begin.
func (s *Suite) Queue(ctx context.Context, out io.Writer) *Queue {
	return &Queue{s: s, ctx: ctx, out: &lockedWriter{w: out}}
}

// Add adds a scenario. Wait begins the queue, if it has not begun, and returns the report
// of the scenario when it has ended. Nothing is added to a queue that has begun.
func (q *Queue) Add(sc Scenario) (wait func() *report.Report) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := &entry{Scenario: sc, slot: q.s.reserve(), ended: make(chan struct{})}
	q.entries = append(q.entries, e)
	return func() *report.Report {
		q.start.Do(func() { go q.run() })
		<-e.ended
		return e.report
	}
}

// run runs all scenarios of the queue.
func (q *Queue) run() {
	q.mu.Lock()
	waiting := slices.Clone(q.entries)
	q.mu.Unlock()
	a := &admission{limit: q.s.o.Parallel, available: q.s.available}
	several := a.limit > 1 && len(waiting) > 1
	width := 0
	if several {
		if !q.s.o.KeepOrder {
			waiting = longestFirst(waiting)
		}
		for _, e := range waiting {
			width = max(width, len(e.title()))
		}
	}
	ended := make(chan *entry)
	for len(waiting)+len(a.running) > 0 {
		if i := a.next(waiting); i >= 0 {
			e, missing := waiting[i], ""
			if len(a.running) == 0 {
				missing = e.Needs.missing(q.s.available)
			}
			waiting = slices.Delete(waiting, i, i+1)
			a.running = append(a.running, e)
			say := newPrinter(q.out)
			if several {
				say.name(e.title(), width)
			}
			go func() {
				e.report = q.s.run(q.ctx, e.Scenario, missing, e.slot, say)
				ended <- e
			}()
			continue
		}
		e := <-ended
		a.running = slices.DeleteFunc(a.running, func(other *entry) bool { return other == e })
		close(e.ended)
	}
}

// longestFirst orders scenarios so that all of them end soon: one that begins last, and
// takes long, would run beside nothing. Those that run alone come at the end.
func longestFirst(entries []*entry) []*entry {
	return slices.SortedStableFunc(slices.Values(entries), func(x, y *entry) int {
		if alone := (x.Alone != ""); alone != (y.Alone != "") {
			if alone {
				return 1
			}
			return -1
		}
		return int(y.Takes - x.Takes)
	})
}

// admission decides which scenario begins beside those that run.
type admission struct {
	limit     int
	available func() (bytes int64, ok bool)
	running   []*entry
	idle      int64 // memory that was available when nothing ran
}

// next returns the index of the first scenario that may begin now, or -1. Where nothing
// runs, that is the first of all: it says itself what it lacks. One that runs may not yet
// have taken the memory that it needs, so that what is available tells too little.
func (a *admission) next(waiting []*entry) int {
	if len(waiting) == 0 {
		return -1
	}
	memory, known := a.available()
	if len(a.running) == 0 {
		a.idle = memory
		return 0
	}
	left := a.idle
	for _, e := range a.running {
		if e.Alone != "" {
			return -1
		}
		left -= e.Needs.Memory
	}
	if !known || len(a.running) >= a.limit {
		return -1
	}
	return slices.IndexFunc(waiting, func(e *entry) bool {
		return e.Alone == "" && e.Needs.Memory <= min(left, memory)
	})
}

// lockedWriter is a writer that several scenarios share.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(text)
}
