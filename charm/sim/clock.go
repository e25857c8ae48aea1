package sim

import (
	"container/heap"
	"time"
)

// clock is virtual time. It moves from one event to the next, and nothing happens between
// two of them. Events of one moment happen in the order in which they were set.
type clock struct {
	now    time.Duration // since the start
	events events
	set    int // how many were set, which orders those of one moment
}

type event struct {
	at    time.Duration
	order int
	do    func()
}

func (c *clock) after(d time.Duration, do func()) {
	c.set++
	heap.Push(&c.events, event{c.now + d, c.set, do})
}

// next lets the next event happen. It returns false if there is none before the end.
func (c *clock) next(end time.Duration) bool {
	if len(c.events) == 0 || c.events[0].at > end {
		c.now = max(c.now, end)
		return false
	}
	e := heap.Pop(&c.events).(event)
	c.now = e.at
	e.do()
	return true
}

// events are a heap, the next one first.
type events []event

func (e events) Len() int      { return len(e) }
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e events) Less(i, j int) bool {
	if e[i].at != e[j].at {
		return e[i].at < e[j].at
	}
	return e[i].order < e[j].order
}
func (e *events) Push(x any) { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	(*e)[len(*e)-1].do = nil
	*e = (*e)[:len(*e)-1]
	return last
}
